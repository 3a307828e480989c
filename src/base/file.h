/* Reading with limits, and outputs that appear under their name only when complete. */
#ifndef VD_BASE_FILE_H
#define VD_BASE_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VD_PATH_CAP = 4096 };

/* Reads a whole regular file of at most `limit` bytes into a malloc'ed, NUL-terminated buffer that the caller
 * frees. Opens without blocking; FIFOs, devices, sockets and folders are refused by kind. `what` names the
 * file's role in messages ("image", "job file"). */
vd_code vd_file_read(const char *path, const char *what, size_t limit, char **bytes, size_t *count,
                     vd_error *err);

/* Reads exactly `count` bytes at `offset` (EINTR and short reads handled; end of file is VD_ERR_DATA). */
vd_code vd_pread_all(int fd, void *buffer, size_t count, uint64_t offset, const char *path, vd_error *err);

/* An output in the making: bytes go to a hidden temporary in the same folder; commit syncs and renames. */
typedef struct vd_outfile {
    int fd; /* -1 when not open */
    bool overwrite;
    char final_path[VD_PATH_CAP];
    char temp_path[VD_PATH_CAP]; /* empty when not open */
} vd_outfile;

/* Creates missing folders of `path`. Only regular files are ever replaced. Without `overwrite` an existing
 * `path` is VD_ERR_CANNOT_CREATE naming -y. */
vd_code vd_outfile_open(vd_outfile *file, const char *path, bool overwrite, vd_error *err);
vd_code vd_outfile_write(vd_outfile *file, const void *bytes, size_t count, vd_error *err);
vd_code vd_outfile_seek(vd_outfile *file, int64_t offset, int whence, int64_t *position, vd_error *err);
/* fsync, rename (refusing to replace when opened without overwrite), fsync of the folder. Always closes. */
vd_code vd_outfile_commit(vd_outfile *file, vd_error *err);
/* Closes and removes the temporary; nothing on a zeroed, committed or abandoned file. */
void vd_outfile_abandon(vd_outfile *file);

/* Writes a whole small file atomically. */
vd_code vd_file_write(const char *path, const void *bytes, size_t count, bool overwrite, vd_error *err);

/* mkdir -p for every folder before the last '/' of `path`. */
vd_code vd_make_parents(const char *path, vd_error *err);

#endif
