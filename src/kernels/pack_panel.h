/* From rows of a file to one panel (see private.h). */
#ifndef PVL_KERNELS_PACK_PANEL_H
#define PVL_KERNELS_PACK_PANEL_H

#include "kernels/private.h"

/* The file's rows that become one panel; lanes behind the last row are zero. */
typedef struct pvl_file_rows {
    pvl_dtype type;
    const unsigned char *first;
    size_t row_bytes, lanes, cols; /* lanes: 1..PVL_PANEL */
} pvl_file_rows;

void pvl_pack_panel(unsigned char *panel, const pvl_file_rows *r, pvl_packing packing);

#endif
