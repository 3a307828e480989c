#include "base/file.h"
#include "media/writers.h"

#include <stdio.h>
#include <string.h>

enum { HEADER_CAP = 256 };

/* The safetensors header: its length in 8 bytes, then JSON padded with spaces to a multiple of 8. */
static size_t make_header(const vd_clip *clip, size_t data_bytes, char header[HEADER_CAP]) {
    int length = snprintf(
        header + 8, HEADER_CAP - 8,
        "{\"latents\":{\"dtype\":\"F32\",\"shape\":[1,%d,%d,%d,%d],\"data_offsets\":[0,%zu]}}",
        clip->latent_frames, clip->latent_channels, clip->latent_height, clip->latent_width, data_bytes);
    size_t padded = ((size_t)length + 7) / 8 * 8;
    memset(header + 8 + length, ' ', padded - (size_t)length);
    for (int i = 0; i < 8; i++)
        header[i] = (char)(padded >> (8 * i));
    return 8 + padded;
}

static vd_code write_parts(vd_outfile *file, const vd_clip *clip, vd_error *err) {
    size_t bytes = sizeof(float) * (size_t)clip->latent_frames * (size_t)clip->latent_channels *
                   (size_t)clip->latent_height * (size_t)clip->latent_width;
    char header[HEADER_CAP];
    VD_TRY(vd_outfile_write(file, header, make_header(clip, bytes, header), err));
    return vd_outfile_write(file, clip->latents, bytes, err);
}

vd_code vd_write_latents(const vd_clip *clip, const char *path, bool overwrite, vd_error *err) {
    vd_outfile file;
    VD_TRY(vd_outfile_open(&file, path, overwrite, err));
    vd_code code = write_parts(&file, clip, err);
    if (code == VD_OK)
        return vd_outfile_commit(&file, err);
    vd_outfile_abandon(&file);
    return code;
}
