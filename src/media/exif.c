#include "media/image_scan.h"

#include <libexif/exif-data.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 65535 - 2 - 6 }; /* what a JPEG segment can hold behind its length and prefix */

static int read_orientation(ExifData *data, const uint8_t *block, size_t count) {
    /* Without this libexif adds the tags that the standard wants and the file lacks. */
    exif_data_unset_option(data, EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
    exif_data_load_data(data, block, (unsigned)count);
    ExifEntry *entry = exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
    if (!entry || entry->format != EXIF_FORMAT_SHORT || entry->components != 1 || entry->size < 2)
        return 1;
    int value = exif_get_short(entry->data, exif_data_get_byte_order(data));
    return value >= 1 && value <= 8 ? value : 1;
}

int vd_exif_orientation(const uint8_t *tiff, size_t count) {
    static const char prefix[6] = "Exif\0"; /* libexif wants it; PNG leaves it out */
    if (count > LONGEST)
        return 1;
    uint8_t *block = malloc(sizeof prefix + count);
    ExifData *data = exif_data_new();
    int orientation = 1;
    if (block && data) {
        memcpy(block, prefix, sizeof prefix);
        memcpy(block + sizeof prefix, tiff, count);
        orientation = read_orientation(data, block, sizeof prefix + count);
    }
    if (data)
        exif_data_unref(data);
    free(block);
    return orientation;
}
