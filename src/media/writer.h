/* Finished clips out: one small table of functions per format, chosen by name. Every file is written under a
 * temporary name and renamed when complete. */
#ifndef VD_MEDIA_WRITER_H
#define VD_MEDIA_WRITER_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct vd_clip {
    int frames, width, height; /* pixels; frames is 0 for a run that makes latents only */
    double fps;                /* played frames per second, > 0 */
    const uint8_t *rgb;        /* [frames, height, width, 3]; NULL for latents only */
    int latent_frames, latent_channels, latent_height, latent_width;
    const float *latents; /* [latent_frames, latent_channels, latent_height, latent_width] */
    const char *comment;  /* settings and seed as one line of JSON: goes into the mp4's comment tag */
} vd_clip;

typedef struct vd_format {
    const char *name;      /* as in --format */
    const char *extension; /* with the dot; "" for a folder-like pattern */
    bool needs_frames;
    /* Writes the clip to `path` (already with the extension). png: `path` is a folder that receives
     * frame-000.png ...; it too appears only when complete. */
    vd_code (*write)(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
    vd_code (*check)(vd_error *err); /* whether the libraries that it needs are here; NULL: it needs none */
} vd_format;

/* NULL when unknown or not built in (mp4 and gif need FFmpeg's libraries). */
const vd_format *vd_format_find(const char *name);
/* "mp4, gif, png, latents, null": what this build offers, for messages. */
const char *vd_format_list(void);

#endif
