#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    pvl_status code;
    const char *name;
} names[] = {
    {PVL_OK, "OK"},
    {PVL_E_ARGUMENT, "ARGUMENT"},
    {PVL_E_MEMORY, "MEMORY"},
    {PVL_E_CANCELLED, "CANCELLED"},
    {PVL_E_IO, "IO"},
    {PVL_E_FORMAT, "FORMAT"},
    {PVL_E_UNSUPPORTED, "UNSUPPORTED"},
    {PVL_E_MODEL, "MODEL"},
    {PVL_E_IMAGE, "IMAGE"},
    {PVL_E_LIMIT, "LIMIT"},
    {PVL_E_CONTEXT, "CONTEXT"},
    {PVL_E_STATE, "STATE"},
    {PVL_E_INTERNAL, "INTERNAL"},
};

const char *pvl_status_name(pvl_status code) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].code == code)
            return names[i].name;
    }
    return "UNKNOWN";
}

/* In brackets: to the analyzer the name is a macro. */
pvl_status(pvl_fail)(pvl_error *err, pvl_status code, const char *fmt, ...) {
    if (!err || err->code != PVL_OK)
        return code;
    err->code = code;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    if (n >= (int)sizeof err->message) {
        /* Do not leave half a UTF-8 character at the cut: step back over continuation bytes and
         * their lead. */
        size_t end = strlen(err->message);
        while (end > 0 && ((unsigned char)err->message[end - 1] & 0xC0u) == 0x80u)
            end--;
        if (end > 0 && (unsigned char)err->message[end - 1] >= 0xC0u)
            end--;
        err->message[end] = '\0';
    }
    return code;
}
