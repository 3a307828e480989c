/* FFmpeg's libraries bring some 160 others with them: a tenth of a second of every start, for which most
 * commands have no use. So they stand behind a module that is opened, on the writer's thread, with the
 * first movie, and then stays: FFmpeg does not take back what it registers in a process. */
#include "media/writers.h"

#include <dlfcn.h>
#include <stddef.h>

typedef vd_code (*movie_writer)(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);

static vd_code write_movie(const char *entry, const vd_clip *clip, const char *path, bool overwrite,
                           vd_error *err) {
    void *module = dlopen("vdpp_movies.so", RTLD_NOW | RTLD_LOCAL);
    movie_writer writer = module ? (movie_writer)dlsym(module, entry) : NULL;
    if (!writer)
        return vd_fail(err, VD_ERR_CANNOT_CREATE,
                       "cannot write '%s': %s; install FFmpeg's libraries or use --format png", path,
                       dlerror());
    return writer(clip, path, overwrite, err);
}

vd_code vd_write_mp4(const vd_clip *clip, const char *path, bool overwrite, vd_error *err) {
    return write_movie("vd_movie_write_mp4", clip, path, overwrite, err);
}

vd_code vd_write_gif(const vd_clip *clip, const char *path, bool overwrite, vd_error *err) {
    return write_movie("vd_movie_write_gif", clip, path, overwrite, err);
}
