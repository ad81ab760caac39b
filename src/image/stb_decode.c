/* The one file that includes stb_image's code. Built with -fwrapv and without
 * UndefinedBehaviorSanitizer (see the build file): the decoder shifts and adds signed numbers
 * freely on damaged files, which is harmless when it wraps. */
#include "image/stb_decode.h"

#include <string.h>

#include "base/alloc.h"

/* Every block of the decoder carries this in front, so that what it forgets on an error path is
 * found and freed. */
typedef struct block {
    struct block *next, **link; /* link: the pointer that points here */
    size_t bytes;
} block;

enum { HEAD = PVL_ALIGN };
_Static_assert(sizeof(block) <= HEAD, "a block's head must keep the alignment");

typedef struct heap {
    const pvl_allocator *allocator;
    block *blocks;
    size_t largest; /* bytes that one block may have */
    bool too_large; /* a larger one was asked for */
    pvl_error error;
} heap;

/* stb_image has no context argument. Each thread has its own, set only inside pvl_stb_decode. */
static _Thread_local heap *current;

static void *heap_alloc(size_t bytes) {
    heap *h = current;
    size_t whole;
    if (bytes > h->largest || !pvl_size_add(&whole, bytes, HEAD)) {
        h->too_large = true;
        return NULL;
    }
    void *p;
    /* Zeroed: what a torn file leaves undefined must not show old memory. */
    if (pvl_calloc(h->allocator, &p, 1, whole, "decoding a picture", &h->error) != PVL_OK)
        return NULL;
    block *b = p;
    *b = (block){h->blocks, &h->blocks, bytes};
    if (b->next)
        b->next->link = &b->next;
    h->blocks = b;
    return (unsigned char *)p + HEAD;
}

static block *unlink_block(void *p) {
    block *b = (void *)((unsigned char *)p - HEAD);
    *b->link = b->next;
    if (b->next)
        b->next->link = b->link;
    return b;
}

static void heap_free(void *p) {
    if (p)
        pvl_free(current->allocator, unlink_block(p));
}

static void *heap_realloc(void *p, size_t old_bytes, size_t bytes) {
    void *fresh = heap_alloc(bytes);
    if (!fresh || !p)
        return fresh;
    memcpy(fresh, p, old_bytes < bytes ? old_bytes : bytes);
    heap_free(p);
    return fresh;
}

#define STBI_MALLOC(bytes) heap_alloc(bytes)
#define STBI_REALLOC_SIZED(p, old_bytes, bytes) heap_realloc(p, old_bytes, bytes)
#define STBI_FREE(p) heap_free(p)
/* The decoder's assertions are about its input as much as about itself; a file must never abort the
 * program. */
#define STBI_ASSERT(x) ((void)0)
#define STBI_MAX_DIMENSIONS PVL_MAX_SIDE
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_NO_SIMD /* one code, and so the same pixels, on every machine */
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION

#if defined(__GNUC__)
/* To the end of the file: gcc counts a function's uses there. */
#pragma GCC diagnostic ignored "-Wunused-function"
#ifndef __clang__
/* At -O3 the compiler follows stb's callback reader, which a decoder from memory never enters; the
 * inlined place decides, so this holds for the whole file. */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#endif
#include <stb/stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

static pvl_status failure(heap *h, const pvl_picture_info *info, pvl_error *err) {
    const char *name = pvl_picture_format_name(info->format);
    if (h->too_large)
        return pvl_fail(err, PVL_E_IMAGE,
                        "The %s file is damaged: it unpacks to more than its %zu x %zu pixels.",
                        name, info->width, info->height);
    if (h->error.code != PVL_OK)
        return pvl_fail(err, h->error.code, "%s", h->error.message);
    const char *reason = stbi_failure_reason();
    return pvl_fail(err, PVL_E_IMAGE,
                    "The %s file cannot be decoded (%s): it is damaged or of a rare kind; save it "
                    "again as JPEG or PNG.",
                    name, reason ? reason : "no reason given");
}

pvl_status pvl_stb_decode(pvl_raw_picture *out, const pvl_picture_info *info, const void *file,
                          size_t bytes, const pvl_allocator *allocator, pvl_error *err) {
    *out = (pvl_raw_picture){0};
    heap h = {.allocator = allocator};
    /* 16-bit RGBA is 8 bytes a pixel; JPEG rounds sides up to 32; unpacking doubles its buffer. */
    uint64_t largest =
        (uint64_t)(info->width + 64) * (info->height + 64) * 9 + (uint64_t)bytes * 2 + (1 << 20);
    h.largest = largest > SIZE_MAX / 2 ? SIZE_MAX / 2 : (size_t)largest;
    current = &h;
    int width = 0, height = 0, channels = 0;
    uint8_t *pixels = stbi_load_from_memory(file, (int)bytes, &width, &height, &channels, 0);
    pvl_status status = PVL_OK;
    if (!pixels) {
        status = failure(&h, info, err);
    } else if ((size_t)width != info->width || (size_t)height != info->height || channels < 1 ||
               channels > 4) {
        status =
            pvl_fail(err, PVL_E_IMAGE, "The %s file is damaged: its size is given in two ways.",
                     pvl_picture_format_name(info->format));
    } else {
        *out = (pvl_raw_picture){unlink_block(pixels), pixels, info->width, info->height, channels};
    }
    while (h.blocks) {
        block *b = h.blocks;
        h.blocks = b->next;
        pvl_free(allocator, b);
    }
    current = NULL;
    return status;
}
