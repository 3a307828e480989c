#include "media/writers.h"

#include <stddef.h>
#include <string.h>

#ifdef VD_HAVE_FFMPEG
#define VD_MOVIES "mp4, gif, "
#else
#define VD_MOVIES ""
#endif

static const vd_format formats[] = {
#ifdef VD_HAVE_FFMPEG
    {"mp4", ".mp4", true, vd_write_mp4, vd_check_movies},
    {"gif", ".gif", true, vd_write_gif, vd_check_movies},
#endif
    {"png", "", true, vd_write_png, NULL},
    {"latents", ".safetensors", false, vd_write_latents, NULL},
    {"null", "", false, vd_write_null, NULL},
};

const vd_format *vd_format_find(const char *name) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

const char *vd_format_list(void) {
    return VD_MOVIES "png, latents, null";
}
