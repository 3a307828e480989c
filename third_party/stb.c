/* The only place where stb's code is compiled: PNG and JPEG in, PNG and JPEG out, all in memory. Every block
 * starts zeroed, so that whatever the decoders leave unwritten cannot depend on what the heap held before.
 * Failures are a plain NULL: the messages come from our own scans. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static void *zeroing_realloc(void *block, size_t old_bytes, size_t new_bytes) {
    char *larger = realloc(block, new_bytes);
    if (larger && new_bytes > old_bytes)
        memset(larger + old_bytes, 0, new_bytes - old_bytes);
    return larger;
}

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#include <assert.h>
#define STBI_ASSERT(condition) assert(condition)
#else
#define STBI_ASSERT(condition) ((void)0)
#endif
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_FAILURE_STRINGS
#define STBI_MALLOC(bytes) calloc(1, bytes)
#define STBI_REALLOC_SIZED(block, old_bytes, new_bytes) zeroing_realloc(block, old_bytes, new_bytes)
#define STBI_FREE(block) free(block)
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>
