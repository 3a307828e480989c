#include "app/batch.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static vd_code add_image(vd_batch *batch, const vd_request *defaults, const char *path, size_t length,
                         vd_error *err) {
    vd_request job = *defaults;
    VD_TRY(vd_batch_keep(batch, path, length, &job.job.image, err));
    return vd_batch_add_job(batch, &job, err);
}

static vd_code add_list(vd_batch *batch, const vd_request *defaults, const char *path, vd_error *err) {
    char *text;
    size_t length;
    int before = batch->job_count;
    VD_TRY(vd_file_read(path, "list of images", VD_JOB_FILE_LIMIT, &text, &length, err));
    vd_code code = VD_OK;
    for (char *at = text; code == VD_OK && *at;) {
        size_t n = strcspn(at, "\r\n");
        if (n > 0)
            code = add_image(batch, defaults, at, n, err);
        at += n + strspn(at + n, "\r\n");
    }
    free(text);
    if (code == VD_OK && batch->job_count == before)
        return vd_fail(err, VD_ERR_DATA, "'%s' lists no images; write one path per line", path);
    return code;
}

static int is_picture(const struct dirent *entry) {
    static const char *const endings[] = {".png", ".jpg", ".jpeg"};
    const char *dot = strrchr(entry->d_name, '.');
    for (size_t i = 0; dot && dot != entry->d_name && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return 1;
    return 0;
}

static vd_code add_folder(vd_batch *batch, const vd_request *defaults, const char *path, vd_error *err) {
    struct dirent **entries;
    int count = scandir(path, &entries, is_picture, alphasort);
    if (count < 0)
        return vd_fail(err, VD_ERR_NO_INPUT, "cannot read the folder '%s': %m", path);
    vd_code code =
        count > 0 ? VD_OK : vd_fail(err, VD_ERR_NO_INPUT, "the folder '%s' has no PNG or JPEG files", path);
    for (int i = 0; i < count; i++) {
        char file[VD_PATH_CAP];
        int length = snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        if (code == VD_OK && length >= (int)sizeof file)
            code = vd_fail(err, VD_ERR_NO_INPUT, "a path in '%.200s' is too long", path);
        if (code == VD_OK)
            code = add_image(batch, defaults, file, (size_t)length, err);
        free(entries[i]);
    }
    free(entries);
    return code;
}

vd_code vd_batch_add_images(vd_batch *batch, const vd_request *defaults, const char *argument,
                            vd_error *err) {
    struct stat info;
    if (argument[0] == '@')
        return add_list(batch, defaults, argument + 1, err);
    if (stat(argument, &info) == 0 && S_ISDIR(info.st_mode))
        return add_folder(batch, defaults, argument, err);
    return add_image(batch, defaults, argument, strlen(argument), err);
}
