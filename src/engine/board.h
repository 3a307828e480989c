/* The named buffers of one device: every external of the programs that it runs, allocated once and bound
 * for good, so that nothing in a launch varies but memory. Fields of the sample's state share one block. */
#ifndef VD_ENGINE_BOARD_H
#define VD_ENGINE_BOARD_H

#include "device/device.h"
#include "engine/state.h"

enum { VD_BOARD_CAP = 32 };

typedef struct vd_board_entry {
    const char *name;
    size_t bytes; /* the most that any program asks for */
    void *memory;
} vd_board_entry;

typedef struct vd_board {
    vd_device *device;
    unsigned char *state;          /* the working state block, [layout->total] */
    unsigned char *rest;           /* all other buffers */
    const vd_state_layout *layout; /* NULL: its programs have nothing to do with a sample's state */
    vd_board_entry entries[VD_BOARD_CAP];
    int count;
    size_t bytes; /* of `rest` */
} vd_board;

/* Planning: notes the externals of `p` that are not fields of the state. */
vd_code vd_board_add(vd_board *b, const vd_program *p, vd_error *err);
/* Allocates state (where there is a layout) and buffers on the device. */
vd_code vd_board_open(vd_board *b, vd_device *device, const vd_state_layout *layout, vd_error *err);
void vd_board_close(vd_board *b); /* zeroed is fine */

void *vd_board_find(const vd_board *b, const char *name); /* NULL: no such buffer */
vd_code vd_board_exec(const vd_board *b, vd_compiled *compiled, void *arena, vd_exec **out, vd_error *err);

#endif
