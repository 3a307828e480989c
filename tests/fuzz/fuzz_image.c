/* Any bytes through vd_image_decode. Whatever is accepted must be complete and the same twice. */
#include "media/image.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    vd_image first, second;
    vd_error err;
    if (vd_image_decode(bytes, count, "fuzz", &first, &err) != VD_OK)
        return 0;
    if (vd_image_decode(bytes, count, "fuzz", &second, &err) != VD_OK || first.width != second.width ||
        first.height != second.height ||
        memcmp(first.rgb, second.rgb, 3 * (size_t)first.width * (size_t)first.height) != 0)
        abort();
    vd_image_free(&first);
    vd_image_free(&second);
    return 0;
}

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t count, size_t cap);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t count, size_t cap, unsigned seed);

static uint32_t get_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Without right CRCs hardly any mutant of a PNG would get past the first chunk. Some keep wrong ones. */
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t count, size_t cap, unsigned seed) {
    count = LLVMFuzzerMutate(bytes, count, cap);
    if (seed % 16 == 0 || count < 8 || memcmp(bytes, "\x89PNG", 4) != 0)
        return count;
    for (size_t at = 8; count - at >= 12;) {
        size_t length = get_be32(bytes + at);
        if (length > count - at - 12)
            break;
        uint32_t crc = (uint32_t)crc32(0, bytes + at + 4, (uInt)length + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + length + i] = (uint8_t)(crc >> (24 - 8 * i));
        at += length + 12;
    }
    return count;
}
#endif
