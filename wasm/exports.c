/* What the shim needs beside pocketvl.h itself: the layouts of its structs as JSON, and progress
 * reports that reach JavaScript. No logic. The functions of pocketvl.h take integers and pointers
 * and are exported as they are (wasm/exports.txt). */
#include <emscripten.h>
#include <stdarg.h>
#include <stdio.h>

#include "pocketvl.h"

/* ---- layouts ---- */

typedef struct json {
    char *out;
    size_t capacity, length;
} json;

static void put(json *j, const char *format, ...) {
    va_list arguments;
    size_t room = j->length < j->capacity ? j->capacity - j->length : 0;
    va_start(arguments, format);
    int n = vsnprintf(room ? j->out + j->length : NULL, room, format, arguments);
    va_end(arguments);
    j->length += n > 0 ? (size_t)n : 0;
}

/* How the shim reads and writes a field of this C type. */
#define KIND(lvalue)                                                                               \
    _Generic((lvalue),                                                                             \
        bool: "bool",                                                                              \
        int: "i32",                                                                                \
        unsigned: "u32",                                                                           \
        size_t: "u32",                                                                             \
        uint64_t: "u64",                                                                           \
        float: "f32",                                                                              \
        double: "f64",                                                                             \
        char *: "text",                                                                            \
        const char *: "string",                                                                    \
        default: "pointer")

#define STRUCT(type)                                                                               \
    put(j, "%s\"" #type "\":{\"size\":%zu,\"fields\":{", comma, sizeof(type)), comma = ""
#define FIELD(type, name)                                                                          \
    put(j, "%s\"" #name "\":[%zu,\"%s\"]", comma, offsetof(type, name), KIND(((type *)0)->name)),  \
        comma = ","
#define END put(j, "}}"), comma = ","

static void option_structs(json *j) {
    const char *comma = "";
    STRUCT(pvl_engine_options);
    FIELD(pvl_engine_options, threads);
    FIELD(pvl_engine_options, precision);
    FIELD(pvl_engine_options, kernels);
    FIELD(pvl_engine_options, allocator);
    END;
    STRUCT(pvl_session_options);
    FIELD(pvl_session_options, context);
    FIELD(pvl_session_options, kv_type);
    FIELD(pvl_session_options, max_batch);
    END;
    STRUCT(pvl_image_options);
    FIELD(pvl_image_options, ignore_orientation);
    FIELD(pvl_image_options, keep_hidden_colour);
    END;
    STRUCT(pvl_prompt_options);
    FIELD(pvl_prompt_options, max_tiles);
    FIELD(pvl_prompt_options, max_tokens);
    FIELD(pvl_prompt_options, temperature);
    FIELD(pvl_prompt_options, top_k);
    FIELD(pvl_prompt_options, top_p);
    FIELD(pvl_prompt_options, repetition_penalty);
    FIELD(pvl_prompt_options, seed);
    FIELD(pvl_prompt_options, stop);
    FIELD(pvl_prompt_options, stop_count);
    FIELD(pvl_prompt_options, json);
    END;
    STRUCT(pvl_part);
    FIELD(pvl_part, kind);
    FIELD(pvl_part, text);
    FIELD(pvl_part, text_bytes);
    FIELD(pvl_part, image);
    END;
    STRUCT(pvl_message);
    FIELD(pvl_message, role);
    FIELD(pvl_message, parts);
    FIELD(pvl_message, part_count);
    END;
    STRUCT(pvl_bytes);
    FIELD(pvl_bytes, data);
    FIELD(pvl_bytes, bytes);
    END;
}

static void result_structs(json *j) {
    const char *comma = ",";
    STRUCT(pvl_error);
    FIELD(pvl_error, code);
    FIELD(pvl_error, message);
    END;
    STRUCT(pvl_engine_info);
    FIELD(pvl_engine_info, name);
    FIELD(pvl_engine_info, architecture);
    FIELD(pvl_engine_info, template_name);
    FIELD(pvl_engine_info, kernels);
    FIELD(pvl_engine_info, threads);
    FIELD(pvl_engine_info, has_vision);
    FIELD(pvl_engine_info, context_length);
    FIELD(pvl_engine_info, vocabulary);
    FIELD(pvl_engine_info, layers);
    FIELD(pvl_engine_info, hidden);
    FIELD(pvl_engine_info, vision_layers);
    FIELD(pvl_engine_info, vision_hidden);
    FIELD(pvl_engine_info, image_size);
    FIELD(pvl_engine_info, tokens_per_tile);
    FIELD(pvl_engine_info, weight_bytes);
    FIELD(pvl_engine_info, parameters);
    END;
    STRUCT(pvl_memory);
    FIELD(pvl_memory, weights);
    FIELD(pvl_memory, kv_cache);
    FIELD(pvl_memory, scratch);
    FIELD(pvl_memory, peak_load);
    END;
    STRUCT(pvl_tiling);
    FIELD(pvl_tiling, columns);
    FIELD(pvl_tiling, rows);
    FIELD(pvl_tiling, tiles);
    FIELD(pvl_tiling, tokens);
    END;
    STRUCT(pvl_piece);
    FIELD(pvl_piece, text);
    FIELD(pvl_piece, text_bytes);
    FIELD(pvl_piece, token);
    FIELD(pvl_piece, stop);
    END;
    STRUCT(pvl_stats);
    FIELD(pvl_stats, prompt_tokens);
    FIELD(pvl_stats, reused_tokens);
    FIELD(pvl_stats, tiles);
    FIELD(pvl_stats, visual_tokens);
    FIELD(pvl_stats, generated_tokens);
    FIELD(pvl_stats, image_ms);
    FIELD(pvl_stats, vision_ms);
    FIELD(pvl_stats, prefill_ms);
    FIELD(pvl_stats, decode_ms);
    FIELD(pvl_stats, context);
    FIELD(pvl_stats, context_used);
    FIELD(pvl_stats, weight_bytes);
    FIELD(pvl_stats, kv_bytes);
    FIELD(pvl_stats, scratch_bytes);
    FIELD(pvl_stats, visual_cache_bytes);
    END;
}

/* {"version", "status": [names by code], "constants": {}, "structs": {name: {"size", "fields":
 * {name: [offset, kind]}}}} as UTF-8, terminated if it fits. Returns the bytes that it takes
 * without the terminator. */
size_t pvlx_abi(char *out, size_t capacity);
size_t pvlx_abi(char *out, size_t capacity) {
    json self = {out, capacity, 0}, *j = &self;
    put(j, "{\"version\":\"" PVL_VERSION "\",\"status\":[");
    for (int code = PVL_OK; code <= PVL_E_INTERNAL; code++)
        put(j, "%s\"%s\"", code ? "," : "", pvl_status_name((pvl_status)code));
    put(j,
        "],\"constants\":{\"KV_F32\":%d,\"KV_Q8\":%d,\"PRECISION_AUTO\":%d,\"PRECISION_F32\":%d,"
        "\"ROLE_SYSTEM\":%d,\"ROLE_USER\":%d,\"ROLE_ASSISTANT\":%d,\"PART_TEXT\":%d,\"PART_IMAGE\":"
        "%d,"
        "\"STOP_NO\":%d,\"STOP_END\":%d,\"STOP_LENGTH\":%d,\"STOP_CONTEXT\":%d,\"STOP_STRING\":%d,"
        "\"MAX_PIXELS\":%d,\"MAX_SIDE\":%d},\"structs\":{",
        PVL_KV_F32, PVL_KV_Q8, PVL_PRECISION_AUTO, PVL_PRECISION_F32, PVL_ROLE_SYSTEM,
        PVL_ROLE_USER, PVL_ROLE_ASSISTANT, PVL_PART_TEXT, PVL_PART_IMAGE, PVL_STOP_NO, PVL_STOP_END,
        PVL_STOP_LENGTH, PVL_STOP_CONTEXT, PVL_STOP_STRING, PVL_MAX_PIXELS, PVL_MAX_SIDE);
    option_structs(j);
    result_structs(j);
    put(j, "}}");
    return self.length;
}

/* ---- progress ---- */

/* Module.onProgress(address of the stage's name, done, total): false cancels. */
// clang-format off
EM_JS(bool, pvlx_report, (const char *stage, double done, double total), {
    return Module['onProgress'] ? Module['onProgress'](stage, done, total) : 1;
})
// clang-format on

static bool report(void *ctx, const char *stage, uint64_t done, uint64_t total) {
    (void)ctx;
    return pvlx_report(stage, (double)done, (double)total);
}

void pvlx_session_report(pvl_session *session);
void pvlx_session_report(pvl_session *session) {
    pvl_session_set_progress(session, report, NULL);
}
