#include "engine/board.h"

#include "base/layout.h"

#include <stdlib.h>
#include <string.h>

static vd_board_entry *find_entry(vd_board *b, const char *name) {
    for (int i = 0; i < b->count; i++)
        if (strcmp(b->entries[i].name, name) == 0)
            return &b->entries[i];
    return NULL;
}

vd_code vd_board_add(vd_board *b, const vd_program *p, vd_error *err) {
    for (vd_value v = 0; v < p->value_count; v++) {
        const vd_value_info *info = &p->values[v];
        if (info->storage != VD_STORAGE_EXTERNAL || vd_state_field(info->name) != VD_FIELD_COUNT)
            continue;
        vd_board_entry *e = find_entry(b, info->name);
        if (!e && b->count == VD_BOARD_CAP)
            return vd_fail(err, VD_ERR_INTERNAL, "program %s: more than %d named buffers", p->name,
                           VD_BOARD_CAP);
        if (!e) {
            e = &b->entries[b->count++];
            *e = (vd_board_entry){.name = info->name};
        }
        size_t bytes = vd_align_up((size_t)vd_shape_count(info->shape) * vd_dtype_bytes(info->dtype));
        if (bytes > e->bytes) {
            b->bytes += bytes - e->bytes;
            e->bytes = bytes;
        }
    }
    return VD_OK;
}

vd_code vd_board_open(vd_board *b, vd_device *device, const vd_state_layout *layout, vd_error *err) {
    void *memory;
    b->device = device;
    b->layout = layout;
    if (layout) {
        VD_TRY(device->table->allocate(device, layout->total, &memory, err));
        b->state = memory;
    }
    if (!b->bytes)
        return VD_OK;
    VD_TRY(device->table->allocate(device, b->bytes, &memory, err));
    b->rest = memory;
    size_t offset = 0;
    for (int i = 0; i < b->count; i++) {
        b->entries[i].memory = b->rest + offset;
        offset += b->entries[i].bytes;
    }
    return VD_OK;
}

void vd_board_close(vd_board *b) {
    if (b->state)
        b->device->table->release(b->device, b->state);
    if (b->rest)
        b->device->table->release(b->device, b->rest);
    *b = (vd_board){0};
}

void *vd_board_find(const vd_board *b, const char *name) {
    vd_field field = vd_state_field(name);
    if (field != VD_FIELD_COUNT)
        return vd_state_at(b->layout, b->state, field);
    for (int i = 0; i < b->count; i++)
        if (strcmp(b->entries[i].name, name) == 0)
            return b->entries[i].memory;
    return NULL;
}

vd_code vd_board_exec(const vd_board *b, vd_compiled *compiled, void *arena, vd_exec **out, vd_error *err) {
    const vd_program *p = compiled->program;
    vd_binding bindings[VD_BOARD_CAP + VD_FIELD_COUNT];
    int count = 0;
    for (vd_value v = 0; v < p->value_count && count < VD_BOARD_CAP + VD_FIELD_COUNT; v++)
        if (p->values[v].storage == VD_STORAGE_EXTERNAL)
            bindings[count++] = (vd_binding){v, vd_board_find(b, p->values[v].name)};
    return b->device->table->exec_open(b->device, compiled, arena, bindings, count, out, err);
}
