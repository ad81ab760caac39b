/* JSON files for the tools: cJSON behind checks whose messages name the file and the key. */
#ifndef PVL_TOOLS_JSON_H
#define PVL_TOOLS_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __clang_analyzer__
/* Static analysis sees one file at a time: that nothing is of no type is said here. */
#define cJSON_IsArray(item) ((item) != NULL && cJSON_IsArray(item))
#define cJSON_IsNumber(item) ((item) != NULL && cJSON_IsNumber(item))
#define cJSON_IsObject(item) ((item) != NULL && cJSON_IsObject(item))
#define cJSON_IsString(item) ((item) != NULL && cJSON_IsString(item))
#endif

/* Where a value stands, for messages: a file, or an object in it. */
typedef struct pvl_json {
    const char *file;
    const cJSON *value; /* an object, or NULL when it is absent */
} pvl_json;

/* Free with cJSON_Delete. PVL_E_FORMAT with the line where the text breaks. */
pvl_status pvl_json_read(cJSON **out, const char *path, size_t limit, pvl_error *err);
pvl_status pvl_json_parse(cJSON **out, const char *text, size_t bytes, const char *name,
                          pvl_error *err);

/* A member, NULL when it is absent or null. */
const cJSON *pvl_json_get(pvl_json from, const char *key);
/* An object member; value NULL when it is absent. */
pvl_json pvl_json_object(pvl_json from, const char *key);
/* The string, or `missing` when absent or no string. */
const char *pvl_json_string(pvl_json from, const char *key, const char *missing);
bool pvl_json_bool(pvl_json from, const char *key, bool missing);

/* Numbers. Absent: `missing`, but PVL_E_FORMAT when that is negative (required). PVL_E_FORMAT too
 * for what is no whole number from 0 to max. */
pvl_status pvl_json_size(size_t *out, pvl_json from, const char *key, int64_t missing, uint64_t max,
                         pvl_error *err);
/* `missing` NaN: required. */
pvl_status pvl_json_number(double *out, pvl_json from, const char *key, double missing,
                           pvl_error *err);

#endif
