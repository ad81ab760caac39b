/* A published folder's configuration and tokenizer files. The input is a row of files: a byte that
 * names one, its text up to the next NUL; FF, which is in no text, stands for a NUL inside. Byte 0
 * says whether the vocabulary alone is wanted. */
#include "fuzz.h"

#include "tools/hf_config.h"
#include "tools/hf_vocab.h"

static const char *const names[] = {"config.json",
                                    "generation_config.json",
                                    "preprocessor_config.json",
                                    "README.md",
                                    "tokenizer_config.json",
                                    "tokenizer.json",
                                    "added_tokens.json",
                                    "vocab.json",
                                    "merges.txt",
                                    "tokenizer.model",
                                    "special_tokens_map.json"};
enum { NAMES = sizeof names / sizeof names[0] };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    bool vocab_only = take(&in, 1) & 1;
    bool there[NAMES] = {false};
    while (in.left) {
        size_t which = take_between(&in, 0, NAMES - 1);
        const uint8_t *end = in.left ? memchr(in.data, 0, in.left) : NULL;
        size_t n = end ? (size_t)(end - in.data) : in.left;
        /* The protobuf file holds zeros: it takes all that is left, as it is. */
        bool binary = strcmp(names[which], "tokenizer.model") == 0;
        size_t bytes;
        char *text = take_bytes(&in, binary ? in.left : n, &bytes);
        for (size_t i = 0; i < bytes && !binary; i++)
            text[i] = text[i] == '\xFF' ? 0 : text[i];
        fuzz_file(names[which], text, bytes);
        free(text);
        there[which] = true;
        take(&in, 1);
    }
    for (size_t i = 0; i < NAMES; i++)
        if (!there[i])
            fuzz_no_file(names[i]);

    pvl_error err = {0};
    pvl_hf_config config;
    pvl_status status = pvl_hf_config_read(&config, fuzz_folder(), vocab_only, &err);
    check_status(status, &err);
    if (status != PVL_OK)
        return 0;
    HOLDS(vocab_only || (config.layers && config.hidden && config.heads && config.kv_heads));
    HOLDS(memchr(config.template_name, 0, sizeof config.template_name));
    HOLDS(memchr(config.license, 0, sizeof config.license));
    /* Sizes that could be: a row of the embedding is a token, and the fuzzer's memory is small. */
    if (config.vocabulary > 4096)
        config.vocabulary = 4096;
    pvl_hf_vocab v;
    status = pvl_hf_vocab_read(&v, &config, fuzz_folder(), &err);
    check_status(status, &err);
    if (status == PVL_OK) {
        size_t used = 0;
        HOLDS(!config.vocabulary || v.count == config.vocabulary);
        for (size_t i = 0; i < v.count; i++)
            used += v.tokens[i].bytes + (size_t)(v.types[i] != 0);
        for (size_t i = 0; i < v.merge_count; i++)
            HOLDS(memchr(v.merges[i].data, ' ', v.merges[i].bytes));
        HOLDS(used);
        const int32_t roles[] = {v.bos, v.eos, v.pad, v.unk};
        for (size_t i = 0; i < 4; i++)
            HOLDS(roles[i] >= -1 && roles[i] < (int64_t)v.count);
    }
    pvl_hf_vocab_free(&v);
    return 0;
}
