/* The writers behind the table of writer.h; each is vd_format.write for a clip that fits its format. */
#ifndef VD_MEDIA_WRITERS_H
#define VD_MEDIA_WRITERS_H

#include "media/writer.h"

/* movies.c: through the module below, opened with the first movie. */
vd_code vd_write_mp4(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
vd_code vd_write_gif(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
vd_code vd_check_movies(vd_error *err);
vd_code vd_write_png(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
vd_code vd_write_latents(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);
vd_code vd_write_null(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);

/* In the module vdpp_movies, the only part that is linked with FFmpeg's libraries. */
#define VD_MODULE_ENTRY __attribute__((visibility("default")))
VD_MODULE_ENTRY vd_code vd_movie_write_mp4(const vd_clip *clip, const char *path, bool overwrite,
                                           vd_error *err);
VD_MODULE_ENTRY vd_code vd_movie_write_gif(const vd_clip *clip, const char *path, bool overwrite,
                                           vd_error *err);

#endif
