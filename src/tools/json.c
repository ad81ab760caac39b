#include "tools/json.h"

#include <math.h>
#include <stdlib.h>

#include "tools/io.h"

pvl_status pvl_json_parse(cJSON **out, const char *text, size_t bytes, const char *name,
                          pvl_error *err) {
    const char *end = NULL;
    *out = cJSON_ParseWithLengthOpts(text, bytes, &end, 0);
    if (*out)
        return PVL_OK;
    size_t line = 1, at = end && end >= text ? (size_t)(end - text) : 0;
    for (size_t i = 0; i < at && i < bytes; i++)
        line += text[i] == '\n';
    return pvl_fail(err, PVL_E_FORMAT, "%s is not valid JSON: see line %zu.", name, line);
}

pvl_status pvl_json_read(cJSON **out, const char *path, size_t limit, pvl_error *err) {
    char *text;
    size_t bytes;
    *out = NULL;
    PVL_TRY(pvl_io_read(&text, &bytes, path, limit, err));
    pvl_status status = pvl_json_parse(out, text, bytes, path, err);
    free(text);
    return status;
}

const cJSON *pvl_json_get(pvl_json from, const char *key) {
    const cJSON *item = from.value ? cJSON_GetObjectItemCaseSensitive(from.value, key) : NULL;
    return cJSON_IsNull(item) ? NULL : item;
}

pvl_json pvl_json_object(pvl_json from, const char *key) {
    const cJSON *item = pvl_json_get(from, key);
    return (pvl_json){from.file, cJSON_IsObject(item) ? item : NULL};
}

const char *pvl_json_string(pvl_json from, const char *key, const char *missing) {
    const cJSON *item = pvl_json_get(from, key);
    return cJSON_IsString(item) ? item->valuestring : missing;
}

bool pvl_json_bool(pvl_json from, const char *key, bool missing) {
    const cJSON *item = pvl_json_get(from, key);
    return cJSON_IsBool(item) ? cJSON_IsTrue(item) : missing;
}

pvl_status pvl_json_size(size_t *out, pvl_json from, const char *key, int64_t missing, uint64_t max,
                         pvl_error *err) {
    const cJSON *item = pvl_json_get(from, key);
    if (!item && missing >= 0) {
        *out = (size_t)missing;
        return PVL_OK;
    }
    double v = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(v >= 0 && v <= (double)max && floor(v) == v))
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s: \"%s\" must be a whole number from 0 to %llu, but %s.", from.file, key,
                        (unsigned long long)max, item ? "it is not" : "it is missing");
    *out = (size_t)v;
    return PVL_OK;
}

pvl_status pvl_json_number(double *out, pvl_json from, const char *key, double missing,
                           pvl_error *err) {
    const cJSON *item = pvl_json_get(from, key);
    if (!item && !isnan(missing)) {
        *out = missing;
        return PVL_OK;
    }
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
        return pvl_fail(err, PVL_E_FORMAT, "%s: \"%s\" must be a number, but %s.", from.file, key,
                        item ? "it is not" : "it is missing");
    *out = item->valuedouble;
    return PVL_OK;
}
