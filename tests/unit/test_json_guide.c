/* JSON as it is written, byte for byte: what Python's json takes and refuses
 * (tests/oracle/text_json_cases.py), and that nothing leads into a dead end. */
#include "text/json_guide.h"

#include "text_vocab.h"

static bool push_text(pvl_json_guide *g, const char *text) {
    return pvl_json_guide_push(g, text, strlen(text));
}

/* Bytes that close the object as soon as may be; false when there is a dead end. */
static bool complete(pvl_json_guide g) {
    for (int steps = 0; steps < 400; steps++) {
        static const char best[] = "\":}]0";
        bool went = false;
        if (pvl_json_guide_done(&g))
            return true;
        for (size_t i = 0; !went && i < sizeof best - 1; i++)
            went = pvl_json_guide_push(&g, best + i, 1);
        for (int c = 0; !went && c < 256; c++) {
            char byte = (char)c;
            went = pvl_json_guide_push(&g, &byte, 1);
        }
        if (!went)
            return false;
    }
    return false;
}

TEST(takes_what_the_reference_takes) {
    size_t size;
    int objects = 0, others = 0;
    char *data = (char *)test_read_file(TEXT_FIXTURES "json.tsv", &size), *rest = data;
    REQUIRE(data);
    for (char *line = strtok_r(data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        bool expected = line[0] == '1';
        size_t n, taken = 0;
        char *hex = line + 2, *text = text_unhex(hex, &n);
        /* White space before and after belongs to the text, not to the object. */
        pvl_json_guide whole = {0}, g = {0};
        bool good = pvl_json_guide_push(&whole, text, n) && pvl_json_guide_done(&whole);
        CHECK_MSG(good == expected, "%s: %d", hex, good);
        while (taken < n && pvl_json_guide_push(&g, text + taken, 1)) {
            taken++;
            CHECK_MSG(complete(g), "%s: a dead end behind %zu bytes", hex, taken);
        }
        CHECK(!expected || taken == n);
        if (expected)
            objects++;
        else
            others++;
        free(text);
    }
    CHECK(objects > 900 && others > 900);
    free(data);
}

TEST(what_is_refused_changes_nothing) {
    pvl_json_guide g = {0}, before;
    REQUIRE(push_text(&g, "{\"a\": [1, "));
    memcpy(&before, &g, sizeof g);
    CHECK(!push_text(&g, "2, 3]}, 4"));
    CHECK_MEM(&g, &before, sizeof g);
    CHECK(push_text(&g, "2, 3]} \n"));
    CHECK(pvl_json_guide_done(&g));
    CHECK(!push_text(&g, "{"));
    CHECK(pvl_json_guide_push(&g, "", 0));
}

TEST(depth_and_white_space_have_an_end) {
    pvl_json_guide g = {0};
    REQUIRE(push_text(&g, "{\"a\":"));
    for (int i = 1; i < PVL_JSON_DEPTH; i++)
        REQUIRE(push_text(&g, i % 2 ? "[" : "{\"b\":"));
    CHECK(!push_text(&g, "["));
    CHECK(!push_text(&g, "{"));
    CHECK(push_text(&g, "1"));
    CHECK(complete(g));
    g = (pvl_json_guide){0};
    REQUIRE(push_text(&g, "{\"a\":1"));
    for (int i = 0; i < PVL_JSON_BLANKS; i++)
        REQUIRE(push_text(&g, " "));
    CHECK(!push_text(&g, "\n"));
    CHECK(push_text(&g, ", "));
    CHECK(complete(g));
}

/* Any bytes that may follow, thousands of them. */
TEST(no_walk_ends_in_a_dead_end) {
    uint32_t random = 1;
    for (int walk = 0; walk < 300; walk++) {
        pvl_json_guide g = {0};
        for (int i = 0; i < 2000 && !pvl_json_guide_done(&g); i++) {
            random = random * 1664525u + 1013904223u;
            char byte = (char)(random >> 24);
            pvl_json_guide_push(&g, &byte, 1);
        }
        CHECK(complete(g));
    }
}

TEST_MAIN(CASE(takes_what_the_reference_takes), CASE(what_is_refused_changes_nothing),
          CASE(depth_and_white_space_have_an_end), CASE(no_walk_ends_in_a_dead_end))
