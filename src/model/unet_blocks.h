/* The UNet as a list of blocks in the order in which they run: the one place that knows its topology
 * (7.3, 7.4). */
#ifndef VD_MODEL_UNET_BLOCKS_H
#define VD_MODEL_UNET_BLOCKS_H

#include "model/config.h"
#include "model/weights.h"

typedef enum vd_block_kind {
    VD_BLOCK_RESNET,    /* 7.5 */
    VD_BLOCK_ATTENTION, /* 7.6 */
    VD_BLOCK_DOWN,      /* stride-2 convolution */
    VD_BLOCK_UP,        /* resize to the newest skip, convolution */
} vd_block_kind;

typedef struct vd_block {
    vd_block_kind kind;
    vd_name name;
    int64_t channels;  /* of its result */
    bool pops;         /* its input is concatenated with the newest skip */
    bool pushes;       /* its result is a skip */
    float eps;         /* resnet: of both halves' norms (7.9) */
    int heads, layers; /* attention */
    int64_t step_bias; /* resnet: where in a row of "step_bias" conv1's bias [channels] lies; the temporal one
                          follows */
    int64_t
        context; /* attention: channels of earlier "context" vectors. Layer l has two: spatial, temporal */
    int64_t positions; /* attention: channels of earlier frame embeddings */
} vd_block;

enum {
    VD_UNET_MAX_BLOCKS = VD_MAX_LEVELS * (4 * VD_MAX_LAYERS + 4) + 3,
    VD_UNET_MAX_SKIPS = VD_MAX_LEVELS * (VD_MAX_LAYERS + 1) + 1,
};

typedef struct vd_unet_blocks {
    vd_block items[VD_UNET_MAX_BLOCKS];
    int count;
    int64_t step_bias; /* P of networks.h: elements of a row */
    int64_t context;   /* Q / G */
    int64_t positions; /* R / F */
} vd_unet_blocks;

void vd_unet_walk(const vd_unet_config *c, vd_unet_blocks *out);

#endif
