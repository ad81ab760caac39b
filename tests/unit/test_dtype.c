/* Element types: bit for bit against the `gguf` Python package, and the quality of the searching
 * encoders. */
#include "../test.h"

#include "base/bytes.h"
#include "kernels/blocks.h"
#include "kernels/dtype.h"

#define FIXTURE "tests/fixtures/dtype.bin"

/* Runs both directions of the fixture; counts what was seen. */
static void run_fixture(uint32_t direction, int expected_records) {
    size_t size;
    unsigned char *file = test_read_file(FIXTURE, &size);
    REQUIRE(file != NULL);
    pvl_cursor c = pvl_cursor_over(file, size);
    const unsigned char *magic = pvl_cursor_take(&c, 4);
    REQUIRE(magic && memcmp(magic, "PVLD", 4) == 0);
    uint32_t records = pvl_cursor_u32(&c);
    int seen = 0;
    for (uint32_t r = 0; r < records; r++) {
        uint32_t type = pvl_cursor_u32(&c), dir = pvl_cursor_u32(&c), n = pvl_cursor_u32(&c);
        uint32_t bytes = pvl_cursor_u32(&c);
        const unsigned char *blocks = pvl_cursor_take(&c, bytes);
        const unsigned char *floats = pvl_cursor_take(&c, (size_t)n * 4);
        REQUIRE(blocks && floats);
        const pvl_dtype_traits *t = pvl_dtype_find(type);
        REQUIRE(t != NULL);
        size_t computed = 0;
        CHECK(pvl_dtype_bytes(&computed, (pvl_dtype)type, n));
        CHECK_EQ_UINT(computed, bytes);
        if (dir != direction)
            continue;
        seen++;
        if (dir == 0) {
            float *y = malloc((size_t)n * sizeof *y);
            REQUIRE(y != NULL);
            pvl_dtype_dequantize((pvl_dtype)type, y, blocks, n);
            for (uint32_t i = 0; i < n; i++)
                CHECK_MSG(pvl_f32_bits(y[i]) == pvl_load_u32(floats + 4 * (size_t)i),
                          "%s value %u is %.9g, expected %.9g", t->name, (unsigned)i, (double)y[i],
                          (double)pvl_bits_f32(pvl_load_u32(floats + 4 * (size_t)i)));
            free(y);
        } else {
            float *x = malloc((size_t)n * sizeof *x);
            unsigned char *out = malloc(bytes);
            REQUIRE(x && out);
            memcpy(x, floats, (size_t)n * sizeof *x);
            pvl_dtype_quantize((pvl_dtype)type, out, x, n);
            for (uint32_t i = 0; i < bytes; i++)
                CHECK_MSG(out[i] == blocks[i], "%s block %u byte %u is %u, expected %u", t->name,
                          (unsigned)(i / t->block_bytes), (unsigned)(i % t->block_bytes),
                          (unsigned)out[i], (unsigned)blocks[i]);
            free(x);
            free(out);
        }
    }
    CHECK(!c.bad && c.at == c.size);
    CHECK_EQ_INT(seen, expected_records);
    free(file);
}

TEST(dequantizes_every_type_bit_for_bit) {
    run_fixture(0, 15);
}

TEST(quantizes_simple_types_bit_for_bit) {
    run_fixture(1, 7);
}

TEST(knows_names_and_sizes) {
    static const struct {
        const char *name;
        uint32_t id;
        size_t length, bytes;
    } rows[] = {{"F32", 0, 1, 4},       {"F16", 1, 1, 2},       {"Q4_0", 2, 32, 18},
                {"Q4_1", 3, 32, 20},    {"Q5_0", 6, 32, 22},    {"Q5_1", 7, 32, 24},
                {"Q8_0", 8, 32, 34},    {"Q2_K", 10, 256, 84},  {"Q3_K", 11, 256, 110},
                {"Q4_K", 12, 256, 144}, {"Q5_K", 13, 256, 176}, {"Q6_K", 14, 256, 210},
                {"IQ4_NL", 20, 32, 18}, {"BF16", 30, 1, 2},     {"IQ4_XS", 23, 256, 136}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const pvl_dtype_traits *t = pvl_dtype_find(rows[i].id);
        REQUIRE(t != NULL);
        CHECK_STR(t->name, rows[i].name);
        CHECK_EQ_UINT(t->block_length, rows[i].length);
        CHECK_EQ_UINT(t->block_bytes, rows[i].bytes);
        pvl_dtype found;
        CHECK(pvl_dtype_from_name(&found, rows[i].name));
        CHECK_EQ_UINT(found, rows[i].id);
    }
    pvl_dtype found;
    CHECK(pvl_dtype_from_name(&found, "q4_k") && found == PVL_DTYPE_Q4_K);
    CHECK(!pvl_dtype_from_name(&found, "q4"));
    CHECK(!pvl_dtype_from_name(&found, "q4_00"));
    CHECK(!pvl_dtype_from_name(&found, ""));
    CHECK(!pvl_dtype_from_name(&found, "IQ2_XXS"));
    CHECK(pvl_dtype_find(16) == NULL && pvl_dtype_find(4) == NULL);
    CHECK(pvl_dtype_find(1000) == NULL && pvl_dtype_find(UINT32_MAX) == NULL);
    CHECK_STR(pvl_dtype_name(16), "IQ2_XXS");
    CHECK(pvl_dtype_name(4) == NULL && pvl_dtype_name(1000) == NULL);
}

TEST(refuses_impossible_sizes) {
    size_t bytes = 7;
    CHECK(!pvl_dtype_bytes(&bytes, PVL_DTYPE_Q4_0, 33));
    CHECK(!pvl_dtype_bytes(&bytes, PVL_DTYPE_Q4_K, 32));
    CHECK(!pvl_dtype_bytes(&bytes, PVL_DTYPE_F32, SIZE_MAX / 2));
    CHECK(!pvl_dtype_bytes(&bytes, PVL_DTYPE_Q8_0, SIZE_MAX - SIZE_MAX % 32));
    CHECK(!pvl_dtype_bytes(&bytes, (pvl_dtype)16, 256));
    CHECK_EQ_UINT(bytes, 7);
    CHECK(pvl_dtype_bytes(&bytes, PVL_DTYPE_Q6_K, 0) && bytes == 0);
}

enum { N = 256 * 40 };

/* Relative error of a type on values that look like weights. */
static double weight_error(pvl_dtype type, int shape, unsigned char *blocks, float *x) {
    test_rng r = test_rng_start(77);
    for (size_t i = 0; i < N; i++) {
        float v = test_rng_normal(&r) * 0.03f;
        if (shape == 1)
            v = v * v * 10 * (v < 0 ? -1.0f : 1.0f); /* heavy tails */
        if (shape == 2)
            v += 0.05f; /* not centred */
        x[i] = v;
    }
    pvl_dtype_quantize(type, blocks, x, N);
    return pvl_dtype_error(type, blocks, x, N);
}

TEST(searching_encoders_are_good) {
    /* Bounds: a little above what they reach; the simple type of as many bits must do worse on
     * centred weights. */
    static const struct {
        pvl_dtype type;
        double bound[3];
        pvl_dtype simple;
    } rows[] = {{PVL_DTYPE_Q4_K, {0.077, 0.100, 0.040}, PVL_DTYPE_Q4_0},
                {PVL_DTYPE_Q5_K, {0.038, 0.050, 0.020}, PVL_DTYPE_Q5_0},
                {PVL_DTYPE_Q6_K, {0.020, 0.024, 0.0155}, PVL_DTYPE_Q5_0},
                {PVL_DTYPE_IQ4_NL, {0.080, 0.093, 0.068}, PVL_DTYPE_Q4_0}};
    float *x = malloc(N * sizeof *x);
    unsigned char *blocks = malloc(N * 2);
    REQUIRE(x && blocks);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int shape = 0; shape < 3; shape++) {
            double e = weight_error(rows[i].type, shape, blocks, x);
            CHECK_MSG(e < rows[i].bound[shape], "%s on shape %d: relative error %.5f, bound %.5f",
                      pvl_dtype_name(rows[i].type), shape, e, rows[i].bound[shape]);
            if (shape == 0)
                CHECK(e < weight_error(rows[i].simple, shape, blocks, x));
        }
    }
    free(x);
    free(blocks);
}

TEST(encoders_stand_extreme_values) {
    static const pvl_dtype types[] = {PVL_DTYPE_F16,  PVL_DTYPE_BF16,  PVL_DTYPE_Q8_0,
                                      PVL_DTYPE_Q4_0, PVL_DTYPE_Q4_1,  PVL_DTYPE_Q5_0,
                                      PVL_DTYPE_Q5_1, PVL_DTYPE_Q4_K,  PVL_DTYPE_Q5_K,
                                      PVL_DTYPE_Q6_K, PVL_DTYPE_IQ4_NL};
    static const float fills[] = {0, 1, -1, 1e-30f, 1e-7f, -1e-7f, 6e4f, 3e38f, -3e38f};
    float x[256], y[256];
    unsigned char blocks[1024];
    test_rng r = test_rng_start(3);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        for (size_t f = 0; f < sizeof fills / sizeof fills[0]; f++) {
            for (int kind = 0; kind < 4; kind++) {
                for (int i = 0; i < 256; i++) {
                    bool one = kind == 1 ? i == 100 : kind == 2 ? i % 3 == 0 : true;
                    float s = kind == 3 ? test_rng_float(&r, -1, 1) : 1;
                    x[i] = one ? fills[f] * s : 0;
                }
                pvl_dtype_quantize(types[t], blocks, x, 256);
                pvl_dtype_dequantize(types[t], y, blocks, 256);
                if (fabsf(fills[f]) > 6e4f && types[t] != PVL_DTYPE_BF16)
                    continue; /* beyond a half: infinite, as the header says */
                double e = test_rel_l2(y, x, 256), bound = fills[f] == 0 ? 0 : 0.2;
                if (fabsf(fills[f]) > 1e-3f || fills[f] == 0)
                    CHECK_MSG(e <= bound, "%s fill %g kind %d: relative error %g",
                              pvl_dtype_name(types[t]), (double)fills[f], kind, e);
                else
                    for (int i = 0; i < 256; i++)
                        CHECK(fabsf(y[i]) <= 2e-5f);
            }
        }
    }
    /* NaN is the caller's mistake, but stays without undefined behaviour. */
    for (int i = 0; i < 256; i++)
        x[i] = i % 5 ? NAN : (float)i;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        pvl_dtype_quantize(types[t], blocks, x, 256);
}

TEST(unaligned_blocks_are_fine) {
    unsigned char room[256 * 4 + 3];
    float x[256], y[256], z[256];
    test_rng r = test_rng_start(9);
    test_fill_normal(&r, x, 256, 1);
    for (uint32_t id = 0; id < 40; id++) {
        const pvl_dtype_traits *t = pvl_dtype_find(id);
        size_t bytes = 0;
        if (!t)
            continue;
        REQUIRE(pvl_dtype_bytes(&bytes, (pvl_dtype)id, 256) && bytes <= 1024);
        if (t->quantizes)
            pvl_dtype_quantize((pvl_dtype)id, room, x, 256);
        else
            for (size_t i = 0; i < bytes; i++)
                room[i] = (unsigned char)(i * 37 & 0x3F);
        pvl_dtype_dequantize((pvl_dtype)id, y, room, 256);
        memmove(room + 3, room, bytes);
        pvl_dtype_dequantize((pvl_dtype)id, z, room + 3, 256);
        CHECK_MEM(y, z, sizeof y);
    }
}

TEST_MAIN(CASE(dequantizes_every_type_bit_for_bit), CASE(quantizes_simple_types_bit_for_bit),
          CASE(knows_names_and_sizes), CASE(refuses_impossible_sizes),
          CASE(searching_encoders_are_good), CASE(encoders_stand_extreme_values),
          CASE(unaligned_blocks_are_fine))
