/* Status codes and the error slot.
 *
 * Every fallible function returns a pvl_status and takes a `pvl_error *` as its last argument (NULL
 * allowed). The first error wins: pvl_fail() leaves a slot alone that already holds one. Messages
 * are one sentence: what was wrong, what was expected, what to do. Nothing here prints, exits or
 * aborts. */
#ifndef PVL_BASE_STATUS_H
#define PVL_BASE_STATUS_H

#include "pocketvl.h"

#if defined(__GNUC__)
#define PVL_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define PVL_PRINTF(fmt, first)
#endif

/* Fills `err` (when not NULL and still PVL_OK) with `code` and the formatted sentence, cut at the
 * slot's size on a character boundary. Returns `code`, so that `return pvl_fail(err, PVL_E_...,
 * "...")` reads as one line. */
pvl_status pvl_fail(pvl_error *err, pvl_status code, const char *fmt, ...) PVL_PRINTF(3, 4);
#ifdef __clang_analyzer__
/* Static analysis sees one file at a time: that a failure is not PVL_OK is said here. */
#define pvl_fail(err, code, ...) ((void)pvl_fail(err, code, __VA_ARGS__), (code))
#endif

/* Returns from the calling function when `expr` is not PVL_OK. */
#define PVL_TRY(expr)                                                                              \
    do {                                                                                           \
        pvl_status pvl_try_status_ = (expr);                                                       \
        if (pvl_try_status_ != PVL_OK)                                                             \
            return pvl_try_status_;                                                                \
    } while (0)

#endif
