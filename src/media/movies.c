/* FFmpeg's libraries bring some 160 others with them: a tenth of a second of every start, for which most
 * commands have no use. So they stand behind a module that is opened, on the writer's thread, with the
 * first movie, and then stays: FFmpeg does not take back what it registers in a process. */
#include "media/writers.h"

#include <dlfcn.h>
#include <stddef.h>

typedef vd_code (*movie_writer)(const vd_clip *clip, const char *path, bool overwrite, vd_error *err);

static vd_code find_writer(const char *entry, movie_writer *out, vd_error *err) {
    void *module = dlopen("vdpp_movies.so", RTLD_NOW | RTLD_LOCAL);
    *out = module ? (movie_writer)dlsym(module, entry) : NULL;
    return *out ? VD_OK
                : vd_fail(err, VD_ERR_CANNOT_CREATE, "%s; install FFmpeg's libraries or use --format png",
                          dlerror());
}

static vd_code write_movie(const char *entry, const vd_clip *clip, const char *path, bool overwrite,
                           vd_error *err) {
    movie_writer writer;
    if (find_writer(entry, &writer, err) != VD_OK)
        return vd_fail_in(err, "cannot write '%s'", path);
    return writer(clip, path, overwrite, err);
}

vd_code vd_check_movies(vd_error *err) {
    movie_writer writer;
    return find_writer("vd_movie_write_mp4", &writer, err);
}

vd_code vd_write_mp4(const vd_clip *clip, const char *path, bool overwrite, vd_error *err) {
    return write_movie("vd_movie_write_mp4", clip, path, overwrite, err);
}

vd_code vd_write_gif(const vd_clip *clip, const char *path, bool overwrite, vd_error *err) {
    return write_movie("vd_movie_write_gif", clip, path, overwrite, err);
}
