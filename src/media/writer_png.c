#include "base/file.h"
#include "media/writers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stb/stb_image_write.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder in the making, beside its final place. */
typedef struct folder {
    char final_path[VD_PATH_CAP];
    char parent[VD_PATH_CAP]; /* of final_path, with the last '/'; "./" when there is none */
    char temp_path[VD_PATH_CAP];
} folder;

static bool is_frame(const char *name) {
    return fnmatch("frame-[0-9][0-9][0-9]*.png", name, 0) == 0;
}

/* Deletes nothing but frames, so a folder with anything else in it stays. */
static void remove_frames(const char *path) {
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (is_frame(entry->d_name))
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(path);
}

static bool holds_only_frames(const char *path) {
    DIR *dir = opendir(path);
    bool only = dir != NULL;
    for (struct dirent *entry; only && (entry = readdir(dir));)
        only = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || is_frame(entry->d_name);
    if (dir)
        closedir(dir);
    return only;
}

static vd_code fail_exists(const char *path, vd_error *err) {
    return vd_fail(err, VD_ERR_CANNOT_CREATE, "'%s' exists already; replace it with -y", path);
}

static vd_code check_target(const char *path, bool overwrite, vd_error *err) {
    struct stat info;
    if (lstat(path, &info) != 0)
        return VD_OK;
    if (!overwrite)
        return fail_exists(path, err);
    if (!S_ISDIR(info.st_mode) || !holds_only_frames(path))
        return vd_fail(err, VD_ERR_CANNOT_CREATE,
                       "'%s' is not a folder of frames made before: it is not replaced; give another name",
                       path);
    return VD_OK;
}

static vd_code name_folder(folder *f, const char *path, vd_error *err) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length == 0 || length + sizeof "/frame-000000.png" + 32 > VD_PATH_CAP)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "'%.200s' cannot be the name of a folder of frames", path);
    memcpy(f->final_path, path, length);
    f->final_path[length] = '\0';
    const char *slash = strrchr(f->final_path, '/');
    if (slash)
        snprintf(f->parent, sizeof f->parent, "%.*s", (int)(slash - f->final_path) + 1, f->final_path);
    else
        strcpy(f->parent, "./");
    return VD_OK;
}

/* Makes "PARENT/.NAME.vdpp-XXXXXX.tmp", as vd_outfile_open names its files; a taken name is drawn again. */
static vd_code create_temporary(folder *f, vd_error *err) {
    const char *name = f->final_path + (strchr(f->final_path, '/') ? strlen(f->parent) : 0);
    for (int attempt = 0; attempt < 100; attempt++) {
        uint32_t random;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            return vd_fail(err, VD_ERR_INTERNAL, "no random bytes from the system: %m");
        if (snprintf(f->temp_path, sizeof f->temp_path, "%s.%.200s.vdpp-%06x.tmp", f->parent, name,
                     random & 0xffffff) >= VD_PATH_CAP)
            errno = ENAMETOOLONG;
        else if (mkdir(f->temp_path, 0777) == 0)
            return VD_OK;
        if (errno != EEXIST)
            break;
    }
    return vd_fail(err, VD_ERR_CANNOT_CREATE, "cannot create '%s': %m", f->final_path);
}

static vd_code open_folder(folder *f, const char *path, bool overwrite, vd_error *err) {
    VD_TRY(name_folder(f, path, err));
    VD_TRY(check_target(f->final_path, overwrite, err));
    VD_TRY(vd_make_parents(f->final_path, err));
    return create_temporary(f, err);
}

/* Renaming a folder over another one is refused unless that is empty; then, if wanted, the two change places
 * and the old one goes. */
static vd_code publish(folder *f, bool overwrite, vd_error *err) {
    if (rename(f->temp_path, f->final_path) == 0)
        return VD_OK;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "cannot create '%s': %m", f->final_path);
    if (!overwrite)
        return fail_exists(f->final_path, err);
    if (renameat2(AT_FDCWD, f->temp_path, AT_FDCWD, f->final_path, RENAME_EXCHANGE) != 0)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "cannot replace '%s': %m; remove it first", f->final_path);
    remove_frames(f->temp_path);
    return VD_OK;
}

static vd_code sync_parent(const folder *f, vd_error *err) {
    int fd = open(f->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL); /* EINVAL: folders cannot be synced here */
    if (!synced)
        vd_fail(err, VD_ERR_IO, "'%s' is written, but its folder cannot be synced: %m", f->final_path);
    if (fd >= 0)
        close(fd);
    return synced ? VD_OK : err->code;
}

typedef struct frame_sink {
    const char *path;
    vd_code code;
    vd_error *err;
} frame_sink;

/* stb_image_write hands over the whole file at once. */
static void write_whole(void *user, void *bytes, int count) {
    frame_sink *sink = user;
    sink->code = vd_file_write(sink->path, bytes, (size_t)count, false, sink->err);
}

static vd_code write_frame(const folder *f, const vd_clip *clip, int index, vd_error *err) {
    char path[VD_PATH_CAP];
    if (snprintf(path, sizeof path, "%s/frame-%03d.png", f->temp_path, index) >= VD_PATH_CAP)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "path is too long: '%.200s...'", f->final_path);
    size_t bytes = 3 * (size_t)clip->width * (size_t)clip->height;
    frame_sink sink = {path, VD_OK, err};
    if (!stbi_write_png_to_func(write_whole, &sink, clip->width, clip->height, 3, clip->rgb + index * bytes,
                                0))
        return vd_fail_memory(err, "compressing a PNG", bytes);
    return sink.code;
}

vd_code vd_write_png(const vd_clip *clip, const char *path, bool overwrite, vd_error *err) {
    folder f;
    VD_TRY(open_folder(&f, path, overwrite, err));
    vd_code code = VD_OK;
    for (int i = 0; i < clip->frames && code == VD_OK; i++)
        code = write_frame(&f, clip, i, err);
    if (code == VD_OK)
        code = publish(&f, overwrite, err);
    if (code != VD_OK) {
        remove_frames(f.temp_path);
        return code;
    }
    return sync_parent(&f, err);
}
