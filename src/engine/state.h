/* A sample's state: everything that moves with it from device to device, in one block, so that a hand-off
 * is one copy. The fields are the externals of the condition and step programs that belong to the sample
 * (model/networks.h); what the former makes for the latter, it makes anew on each device. */
#ifndef VD_ENGINE_STATE_H
#define VD_ENGINE_STATE_H

#include "device/program.h"

typedef enum vd_field {
    VD_FIELD_EMBEDS,    /* f32 [D] */
    VD_FIELD_TIME_IDS,  /* f32 [3] */
    VD_FIELD_TIMESTEPS, /* f32 [n] */
    VD_FIELD_SIGMAS,    /* f32 [n+1] */
    VD_FIELD_GUIDANCE,  /* f32 [F] */
    VD_FIELD_STEP,      /* i32 [1] */
    VD_FIELD_IMAGE,     /* f32 [h,w,C] */
    VD_FIELD_LATENTS,   /* f32 [F,h,w,C] */
    VD_FIELD_COUNT
} vd_field;

typedef struct vd_state_layout {
    size_t offset[VD_FIELD_COUNT], bytes[VD_FIELD_COUNT];
    size_t total; /* multiple of VD_ALIGNMENT */
} vd_state_layout;

/* Sizes from the externals of the two programs that use the state. */
vd_code vd_state_plan(const vd_program *condition, const vd_program *step, vd_state_layout *out,
                      vd_error *err);

/* The field whose external is called `name`, or VD_FIELD_COUNT. */
vd_field vd_state_field(const char *name);

static inline void *vd_state_at(const vd_state_layout *l, void *block, vd_field field) {
    return (unsigned char *)block + l->offset[field];
}

#endif
