#include "base/hash.h"

#include <endian.h>
#include <string.h>

static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t vd_hash64(const void *bytes, size_t count) {
    const unsigned char *at = bytes;
    size_t words = count / 4, tail = count % 4;
    uint64_t sum = mix(((uint64_t)UINT32_MAX << 32) + count);
    uint32_t word;
    for (size_t i = 0; i < words; i++) {
        memcpy(&word, at + 4 * i, sizeof word);
        sum += mix(((uint64_t)i << 32) + le32toh(word));
    }
    if (tail > 0) {
        word = 0;
        memcpy(&word, at + 4 * words, tail);
        sum += mix(((uint64_t)words << 32) + le32toh(word));
    }
    return sum;
}
