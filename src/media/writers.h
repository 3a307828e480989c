/* The writers behind the table of writer.h; each is vd_format.write for a clip that fits its format. */
#ifndef VD_MEDIA_WRITERS_H
#define VD_MEDIA_WRITERS_H

#include "media/writer.h"

vd_code vd_write_mp4(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
vd_code vd_write_gif(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
vd_code vd_write_png(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
vd_code vd_write_latents(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
vd_code vd_write_null(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);

#endif
