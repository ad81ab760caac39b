#include "text/json_guide.h"

#include "text/unicode.h"

enum {
    BEGIN,      /* nothing yet: an object */
    FIRST_NAME, /* in a new object: a name, or its end */
    NAME,       /* behind a comma: a name */
    COLON,      /* behind a name */
    FIRST_ITEM, /* in a new array: a value, or its end */
    VALUE,      /* behind a colon or a comma */
    BEHIND,     /* behind a value: a comma, or an end */
    DONE,       /* the object is closed */
    STRING,     /* these and what follows take white space as they take anything else */
    CHARACTER,  /* within one of several bytes */
    ESCAPE,     /* behind a backslash */
    UNICODE,    /* the four digits of \uXXXX */
    WORD,       /* true, false, null */
    MINUS,
    ZERO, /* no digit follows; in this and in DIGITS, FRACTION and POWER a number may end */
    DIGITS,
    POINT, /* a digit must follow */
    FRACTION,
    EXPONENT, /* a sign or a digit must follow */
    SIGN,     /* a digit must follow */
    POWER
};

static bool is_blank(unsigned char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(unsigned char c) {
    return c >= '0' && c <= '9';
}

static bool is_hexadecimal(unsigned char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool go(pvl_json_guide *g, uint8_t state) {
    g->state = state;
    return true;
}

static bool open_level(pvl_json_guide *g, bool array) {
    if (g->depth == PVL_JSON_DEPTH)
        return false;
    uint64_t bit = (uint64_t)1 << g->depth++;
    g->arrays = array ? g->arrays | bit : g->arrays & ~bit;
    return go(g, array ? FIRST_ITEM : FIRST_NAME);
}

static bool close_level(pvl_json_guide *g, bool array) {
    if ((g->arrays >> (g->depth - 1) & 1) != array)
        return false;
    g->depth--;
    return go(g, g->depth ? BEHIND : DONE);
}

static bool open_string(pvl_json_guide *g, bool name) {
    g->name = name;
    return go(g, STRING);
}

static bool open_word(pvl_json_guide *g, const char *rest) {
    g->word = rest;
    return go(g, WORD);
}

static bool value(pvl_json_guide *g, unsigned char c) {
    switch (c) {
    case '{':
    case '[':
        return open_level(g, c == '[');
    case '"':
        return open_string(g, false);
    case '-':
        return go(g, MINUS);
    case '0':
        return go(g, ZERO);
    case 't':
        return open_word(g, "rue");
    case 'f':
        return open_word(g, "alse");
    case 'n':
        return open_word(g, "ull");
    default:
        return is_digit(c) && go(g, DIGITS);
    }
}

/* A byte of a character of several. */
static bool in_character(pvl_json_guide *g, unsigned char c) {
    uint32_t cp;
    g->character[g->have++] = c;
    (void)pvl_utf8_decode(&cp, g->character, g->have);
    if (cp == PVL_UTF8_SHORT)
        return go(g, CHARACTER);
    g->have = 0;
    return cp != PVL_UTF8_BAD && go(g, STRING);
}

static bool in_string(pvl_json_guide *g, unsigned char c) {
    switch (g->state) {
    case CHARACTER:
        return in_character(g, c);
    case ESCAPE:
        if (c == 'u') {
            g->digits = 4;
            return go(g, UNICODE);
        }
        return (c == '"' || c == '\\' || c == '/' || c == 'b' || c == 'f' || c == 'n' || c == 'r' ||
                c == 't') &&
               go(g, STRING);
    case UNICODE:
        if (!is_hexadecimal(c))
            return false;
        return --g->digits > 0 || go(g, STRING);
    default:
        if (c == '"')
            return go(g, g->name ? COLON : BEHIND);
        if (c == '\\')
            return go(g, ESCAPE);
        return c >= 0x80 ? in_character(g, c) : c >= 0x20;
    }
}

static bool in_word(pvl_json_guide *g, unsigned char c) {
    if (c != (unsigned char)*g->word)
        return false;
    g->word++;
    return *g->word != '\0' || go(g, BEHIND);
}

/* Behind a whole value, or a number that may end here. */
static bool behind(pvl_json_guide *g, unsigned char c) {
    if (c == ',')
        return go(g, g->arrays >> (g->depth - 1) & 1 ? VALUE : NAME);
    return (c == '}' || c == ']') && close_level(g, c == ']');
}

static bool in_number(pvl_json_guide *g, unsigned char c) {
    bool digit = is_digit(c);
    switch (g->state) {
    case MINUS:
        return digit && go(g, c == '0' ? ZERO : DIGITS);
    case POINT:
        return digit && go(g, FRACTION);
    case EXPONENT:
        return (c == '+' || c == '-') ? go(g, SIGN) : digit && go(g, POWER);
    case SIGN:
        return digit && go(g, POWER);
    case ZERO:
    case DIGITS:
        if (c == '.')
            return go(g, POINT);
        break;
    default:
        break;
    }
    if (digit)
        return g->state != ZERO;
    if ((c == 'e' || c == 'E') && g->state != POWER)
        return go(g, EXPONENT);
    if (!is_blank(c))
        return behind(g, c);
    g->blanks = 1;
    return go(g, BEHIND);
}

static bool between(pvl_json_guide *g, unsigned char c) {
    switch (g->state) {
    case BEGIN:
        return c == '{' && open_level(g, false);
    case FIRST_NAME:
        return c == '}' ? close_level(g, false) : c == '"' && open_string(g, true);
    case NAME:
        return c == '"' && open_string(g, true);
    case COLON:
        return c == ':' && go(g, VALUE);
    case FIRST_ITEM:
        return c == ']' ? close_level(g, true) : value(g, c);
    case VALUE:
        return value(g, c);
    case BEHIND:
        return behind(g, c);
    default:
        return false;
    }
}

static bool step(pvl_json_guide *g, unsigned char c) {
    if (g->state >= MINUS)
        return in_number(g, c);
    if (g->state == WORD)
        return in_word(g, c);
    if (g->state >= STRING)
        return in_string(g, c);
    if (is_blank(c))
        return g->blanks++ < (g->state == BEGIN ? 1 : PVL_JSON_BLANKS);
    g->blanks = 0;
    return between(g, c);
}

bool pvl_json_guide_push(pvl_json_guide *g, const char *bytes, size_t count) {
    pvl_json_guide next = *g;
    for (size_t i = 0; i < count; i++)
        if (!step(&next, (unsigned char)bytes[i]))
            return false;
    *g = next;
    return true;
}

bool pvl_json_guide_done(const pvl_json_guide *g) {
    return g->state == DONE;
}
