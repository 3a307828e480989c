#include "engine/state.h"

#include "base/layout.h"

#include <string.h>

static const char *const field_names[VD_FIELD_COUNT] = {
    [VD_FIELD_EMBEDS] = "embeds", [VD_FIELD_TIME_IDS] = "time_ids", [VD_FIELD_TIMESTEPS] = "timesteps",
    [VD_FIELD_SIGMAS] = "sigmas", [VD_FIELD_GUIDANCE] = "guidance", [VD_FIELD_STEP] = "step",
    [VD_FIELD_IMAGE] = "image",   [VD_FIELD_LATENTS] = "latents",
};

vd_field vd_state_field(const char *name) {
    int field = 0;
    while (field < VD_FIELD_COUNT && strcmp(field_names[field], name) != 0)
        field++;
    return (vd_field)field;
}

static size_t external_bytes(const vd_program *p, const char *name) {
    vd_value v = vd_program_find(p, name);
    return v == VD_NONE ? 0 : (size_t)vd_shape_count(p->values[v].shape) * vd_dtype_bytes(p->values[v].dtype);
}

vd_code vd_state_plan(const vd_program *condition, const vd_program *step, vd_state_layout *out,
                      vd_error *err) {
    *out = (vd_state_layout){0};
    for (int f = 0; f < VD_FIELD_COUNT; f++) {
        size_t a = external_bytes(condition, field_names[f]), b = external_bytes(step, field_names[f]);
        if (a + b == 0 || (a && b && a != b))
            return vd_fail(err, VD_ERR_INTERNAL, "programs %s and %s disagree about '%s': %zu and %zu bytes",
                           condition->name, step->name, field_names[f], a, b);
        out->offset[f] = out->total;
        out->bytes[f] = a ? a : b;
        out->total += vd_align_up(out->bytes[f]);
    }
    return VD_OK;
}
