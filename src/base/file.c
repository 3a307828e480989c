#include "base/file.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_name(mode_t mode) {
    return S_ISREG(mode)    ? "regular file"
           : S_ISDIR(mode)  ? "folder"
           : S_ISFIFO(mode) ? "FIFO"
           : S_ISSOCK(mode) ? "socket"
                            : "device";
}

/* Opens a regular file without ever blocking: the kind is asked of the opened file, so nobody can swap it. */
static vd_code open_regular(const char *path, const char *what, int *fd, struct stat *info, vd_error *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int error = errno;
    bool known =
        *fd >= 0 ? fstat(*fd, info) == 0 : error == ENXIO && stat(path, info) == 0; /* ENXIO: a socket */
    if (known && *fd >= 0 && S_ISREG(info->st_mode))
        return VD_OK;
    if (*fd >= 0)
        close(*fd);
    if (known)
        return vd_fail(err, VD_ERR_NO_INPUT, "%s '%s' is a %s; give a regular file", what, path,
                       kind_name(info->st_mode));
    errno = error;
    return vd_fail(err, VD_ERR_NO_INPUT, "cannot open %s '%s': %m", what, path);
}

static vd_code fail_too_large(const char *path, const char *what, size_t limit, vd_error *err) {
    char most[32];
    return vd_fail(err, VD_ERR_DATA, "%s '%s' is larger than %s, the most that is read", what, path,
                   vd_human_bytes(most, sizeof most, limit));
}

/* Reads to the end rather than to the size told: the file may grow, and files of /proc tell 0. */
static vd_code read_to_end(int fd, const char *path, const char *what, size_t limit, size_t capacity,
                           char **bytes, size_t *count, vd_error *err) {
    for (;; capacity *= 2) {
        char *larger = realloc(*bytes, capacity);
        if (!larger)
            return vd_fail_memory(err, what, capacity);
        *bytes = larger;
        while (*count < capacity) {
            ssize_t got = read(fd, *bytes + *count, capacity - *count);
            if (got < 0 && errno == EINTR)
                continue;
            if (got < 0)
                return vd_fail(err, VD_ERR_IO, "cannot read %s '%s': %m", what, path);
            if (got == 0) {
                (*bytes)[*count] = '\0';
                return VD_OK;
            }
            *count += (size_t)got;
            if (*count > limit)
                return fail_too_large(path, what, limit, err);
        }
    }
}

vd_code vd_file_read(const char *path, const char *what, size_t limit, char **bytes, size_t *count,
                     vd_error *err) {
    int fd;
    struct stat info;
    *bytes = NULL;
    *count = 0;
    VD_TRY(open_regular(path, what, &fd, &info, err));
    vd_code code = (uint64_t)info.st_size > limit
                       ? fail_too_large(path, what, limit, err)
                       : read_to_end(fd, path, what, limit, (size_t)info.st_size + 1, bytes, count, err);
    close(fd);
    if (code != VD_OK) {
        free(*bytes);
        *bytes = NULL;
        *count = 0;
    }
    return code;
}

vd_code vd_pread_all(int fd, void *buffer, size_t count, uint64_t offset, const char *path, vd_error *err) {
    if (offset > INT64_MAX || count > INT64_MAX - offset)
        return vd_fail(err, VD_ERR_DATA, "'%s': no file has %zu bytes at offset %llu", path, count,
                       (unsigned long long)offset);
    char *at = buffer;
    while (count > 0) {
        ssize_t got = pread(fd, at, count, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return vd_fail(err, VD_ERR_IO, "cannot read '%s' at byte %llu: %m", path,
                           (unsigned long long)offset);
        if (got == 0)
            return vd_fail(err, VD_ERR_DATA, "'%s' ends at or before byte %llu, where %zu more are expected",
                           path, (unsigned long long)offset, count);
        at += got;
        count -= (size_t)got;
        offset += (uint64_t)got;
    }
    return VD_OK;
}

/* Bytes of `path` up to and with its last '/'. */
static size_t folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

static bool is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

vd_code vd_make_parents(const char *path, vd_error *err) {
    char folder[VD_PATH_CAP];
    size_t length = folder_length(path);
    if (length >= sizeof folder)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "path of %zu bytes is too long: '%.200s...'", strlen(path),
                       path);
    for (size_t i = 1; i < length; i++) {
        if (path[i] != '/')
            continue;
        memcpy(folder, path, i);
        folder[i] = '\0';
        if (mkdir(folder, 0777) == 0 || errno == EEXIST)
            continue;
        int error = errno;
        if (is_folder(folder))
            continue;
        errno = error;
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "cannot create folder '%s': %m", folder);
    }
    return VD_OK;
}

static vd_code fail_exists(const char *path, vd_error *err) {
    return vd_fail(err, VD_ERR_CANNOT_CREATE, "'%s' exists already; replace it with -y", path);
}

/* A rename would put a file in the place of what `path` names: only a regular file may be lost that way. */
static vd_code check_target(const char *path, bool overwrite, vd_error *err) {
    struct stat info;
    if (path[folder_length(path)] == '\0')
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "output '%s' names no file", path);
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "output '%s' is a %s; give the name of a file", path,
                       kind_name(info.st_mode));
    if (!overwrite && lstat(path, &info) == 0)
        return fail_exists(path, err);
    return VD_OK;
}

/* Writes "FOLDER/.NAME.vdpp-XXXXXX.tmp"; a long NAME is cut, between characters, to what a file name may
 * have. */
static vd_code name_temporary(vd_outfile *file, vd_error *err) {
    enum { LONGEST_NAME = NAME_MAX - (int)sizeof "..vdpp-XXXXXX.tmp" + 1 };
    const char *path = file->final_path;
    size_t folder = folder_length(path), name = strlen(path) - folder;
    if (name > LONGEST_NAME)
        for (name = LONGEST_NAME; name > 0 && (path[folder + name] & 0xc0) == 0x80;)
            name--;
    uint32_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return vd_fail(err, VD_ERR_INTERNAL, "no random bytes from the system: %m");
    int length = snprintf(file->temp_path, sizeof file->temp_path, "%.*s.%.*s.vdpp-%06x.tmp", (int)folder,
                          path, (int)name, path + folder, (unsigned)(random & 0xffffff));
    if (length >= (int)sizeof file->temp_path)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "path of %zu bytes is too long: '%.200s...'", strlen(path),
                       path);
    return VD_OK;
}

/* Opens a temporary that did not exist; a taken name is drawn again. */
static vd_code create_temporary(vd_outfile *file, vd_error *err) {
    for (int attempt = 0; attempt < 100; attempt++) {
        VD_TRY(name_temporary(file, err));
        file->fd = open(file->temp_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (file->fd >= 0)
            return VD_OK;
        if (errno != EEXIST && errno != EINTR)
            break;
    }
    return vd_fail(err, VD_ERR_CANNOT_CREATE, "cannot create '%s': %m", file->final_path);
}

vd_code vd_outfile_open(vd_outfile *file, const char *path, bool overwrite, vd_error *err) {
    file->fd = -1;
    file->overwrite = overwrite;
    file->temp_path[0] = '\0';
    size_t length = strlen(path);
    if (length >= sizeof file->final_path)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "path of %zu bytes is too long: '%.200s...'", length, path);
    memcpy(file->final_path, path, length + 1);
    VD_TRY(check_target(path, overwrite, err));
    VD_TRY(vd_make_parents(path, err));
    vd_code code = create_temporary(file, err);
    if (code != VD_OK)
        file->temp_path[0] = '\0';
    return code;
}

vd_code vd_outfile_write(vd_outfile *file, const void *bytes, size_t count, vd_error *err) {
    const char *at = bytes;
    while (count > 0) {
        ssize_t done = write(file->fd, at, count);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return vd_fail(err, VD_ERR_IO, "cannot write '%s': %m", file->final_path);
        at += done;
        count -= (size_t)done;
    }
    return VD_OK;
}

vd_code vd_outfile_seek(vd_outfile *file, int64_t offset, int whence, int64_t *position, vd_error *err) {
    off_t at = lseek(file->fd, (off_t)offset, whence);
    if (at < 0)
        return vd_fail(err, VD_ERR_IO, "cannot seek in '%s': %m", file->final_path);
    *position = at;
    return VD_OK;
}

static int rename_without_replacing(const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    return link(from, to) == 0 ? unlink(from) : -1; /* file systems without the flag */
}

static int sync_folder_of(const char *path) {
    char folder[VD_PATH_CAP] = ".";
    size_t length = folder_length(path);
    if (length > 0) {
        memcpy(folder, path, length);
        folder[length] = '\0';
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = fsync(fd), error = errno;
    close(fd);
    errno = error;
    return result == 0 || error == EINVAL ? 0 : -1; /* EINVAL: this file system cannot sync folders */
}

static int close_file(vd_outfile *file) {
    int result = close(file->fd);
    file->fd = -1;
    return result;
}

vd_code vd_outfile_commit(vd_outfile *file, vd_error *err) {
    const char *path = file->final_path;
    vd_code code = VD_OK;
    if (fsync(file->fd) != 0 || close_file(file) != 0)
        code = vd_fail(err, VD_ERR_IO, "cannot write '%s': %m", path);
    else if ((file->overwrite ? rename : rename_without_replacing)(file->temp_path, path) != 0)
        code = errno == EEXIST ? fail_exists(path, err)
                               : vd_fail(err, VD_ERR_CANNOT_CREATE, "cannot create '%s': %m", path);
    if (code != VD_OK) {
        vd_outfile_abandon(file);
        return code;
    }
    file->temp_path[0] = '\0';
    if (sync_folder_of(path) != 0)
        return vd_fail(err, VD_ERR_IO, "'%s' is written, but its folder cannot be synced: %m", path);
    return VD_OK;
}

void vd_outfile_abandon(vd_outfile *file) {
    if (file->temp_path[0] == '\0')
        return;
    if (file->fd >= 0)
        close_file(file);
    unlink(file->temp_path);
    file->temp_path[0] = '\0';
}

vd_code vd_file_write(const char *path, const void *bytes, size_t count, bool overwrite, vd_error *err) {
    vd_outfile file;
    VD_TRY(vd_outfile_open(&file, path, overwrite, err));
    vd_code code = vd_outfile_write(&file, bytes, count, err);
    if (code == VD_OK)
        return vd_outfile_commit(&file, err);
    vd_outfile_abandon(&file);
    return code;
}
