/* Which bytes may follow, so that an answer is one JSON object (RFC 8259), whatever the model
 * would rather say.
 *
 * A guide has read the beginning of an object and knows what may come next. What it has taken can
 * always be completed; once the object is closed nothing but white space follows. Two bounds are
 * ours, for a model that would go on for ever: PVL_JSON_DEPTH levels, and PVL_JSON_BLANKS bytes of
 * white space in one place, in front of the object a single one. Texts are whole UTF-8 characters;
 * names may occur twice, as the RFC allows. Plain data: zero is the beginning, copies are
 * independent. */
#ifndef PVL_TEXT_JSON_GUIDE_H
#define PVL_TEXT_JSON_GUIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PVL_JSON_DEPTH = 64, /* objects and arrays within each other */
    PVL_JSON_BLANKS = 32 /* a line's end and indentation */
};

typedef struct pvl_json_guide {
    uint64_t arrays; /* bit i: what is open at level i is an array */
    uint8_t depth;   /* levels that are open */
    uint8_t state;   /* json_guide.c has them */
    bool name;       /* the string is a member's name */
    uint8_t blanks;  /* bytes of white space just read */
    uint8_t digits;  /* of \uXXXX that are wanted yet */
    uint8_t have;    /* bytes of a character that has more */
    unsigned char character[4];
    const char *word; /* the rest of true, false or null */
} pvl_json_guide;

/* Takes all of the bytes, or none: false, the guide as it was, when they cannot follow. */
bool pvl_json_guide_push(pvl_json_guide *g, const char *bytes, size_t count);
/* The object is closed. */
bool pvl_json_guide_done(const pvl_json_guide *g);

#endif
