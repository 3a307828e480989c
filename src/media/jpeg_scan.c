/* JPEG (ITU-T T.81): the markers, the tables and, through jpeg_entropy.c, the data of every scan up to EOI.
 */
#include "media/image_scan.h"
#include "media/jpeg.h"

#include <stdlib.h>
#include <string.h>

enum {
    SOF0 = 0xc0,
    SOF2 = 0xc2,
    DHT = 0xc4,
    SOF15 = 0xcf,
    RST0 = 0xd0,
    RST7 = 0xd7,
    EOI = 0xd9,
    SOS = 0xda,
    DQT = 0xdb,
    DRI = 0xdd,
    APP0 = 0xe0,
    APP1 = 0xe1,
    APP15 = 0xef,
    COM = 0xfe,
};

/* Encoders make about 10 scans. Each one costs a pass over all blocks however few bytes it has. */
enum { MOST_SCANS = 100 };

typedef struct parser {
    const uint8_t *at, *end;
    vd_scan *out;
    vd_jpeg jpeg;
    int scans;
    bool has_exif;
} parser;

typedef struct segment {
    const uint8_t *at, *end; /* payload */
} segment;

static size_t left(const segment *s) {
    return (size_t)(s->end - s->at);
}

static vd_code fail_cut(vd_error *err) {
    return vd_fail(err, VD_ERR_DATA, "it is cut short: no end of image (EOI)");
}

static vd_code fail_length(const char *name, vd_error *err) {
    return vd_fail(err, VD_ERR_DATA, "its %s segment has a wrong length", name);
}

/* Like every reader, skips stray bytes in front of a marker. */
static vd_code next_marker(parser *p, int *marker, vd_error *err) {
    for (;;) {
        while (p->at < p->end && *p->at != 0xff)
            p->at++;
        while (p->at < p->end && *p->at == 0xff)
            p->at++;
        if (p->at == p->end)
            return fail_cut(err);
        *marker = *p->at++;
        if (*marker != 0)
            return VD_OK;
    }
}

static vd_code next_segment(parser *p, segment *s, vd_error *err) {
    size_t available = (size_t)(p->end - p->at);
    size_t length = available < 2 ? 0 : vd_be16(p->at);
    if (available < 2 || length > available)
        return fail_cut(err);
    if (length < 2)
        return vd_fail(err, VD_ERR_DATA, "a segment is shorter than the length in front of it");
    *s = (segment){p->at + 2, p->at + length};
    p->at += length;
    return VD_OK;
}

static vd_code take_dqt(parser *p, segment s, vd_error *err) {
    while (left(&s) > 0) {
        int wide = *s.at >> 4, table = *s.at & 15;
        size_t bytes = 1 + (wide ? 128 : 64);
        if (wide > 1 || table >= VD_JPEG_TABLES || left(&s) < bytes)
            return fail_length("DQT", err);
        p->jpeg.quantizers[table] = true;
        s.at += bytes;
    }
    return VD_OK;
}

static vd_code take_dht(parser *p, segment s, vd_error *err) {
    while (left(&s) > 0) {
        if (left(&s) < 17)
            return fail_length("DHT", err);
        int kind = *s.at >> 4, table = *s.at & 15;
        const uint8_t *counts = s.at + 1;
        size_t total = 0;
        for (int i = 0; i < 16; i++)
            total += counts[i];
        s.at += 17;
        if (kind > 1 || table >= VD_JPEG_TABLES || total > 256 || total > left(&s))
            return fail_length("DHT", err);
        VD_TRY(vd_jpeg_define_huffman(kind ? &p->jpeg.ac[table] : &p->jpeg.dc[table], counts, s.at, err));
        s.at += total;
    }
    return VD_OK;
}

static vd_code take_dri(parser *p, segment s, vd_error *err) {
    if (left(&s) != 2)
        return fail_length("DRI", err);
    p->jpeg.restart_interval = vd_be16(s.at);
    return VD_OK;
}

static vd_code take_app1(parser *p, segment s) {
    static const char prefix[6] = "Exif\0";
    if (p->has_exif || left(&s) < sizeof prefix || memcmp(s.at, prefix, sizeof prefix) != 0)
        return VD_OK;
    p->has_exif = true;
    p->out->orientation = vd_exif_orientation(s.at + sizeof prefix, left(&s) - sizeof prefix);
    return VD_OK;
}

/* NULL when the process of this frame marker is read. */
static const char *name_unread_process(int marker) {
    static const char *const names[16] = {
        [0x3] = "a lossless",          [0x5] = "a hierarchical",      [0x6] = "a hierarchical",
        [0x7] = "a lossless",          [0x8] = "an extended (JPG)",   [0x9] = "an arithmetic-coded",
        [0xa] = "an arithmetic-coded", [0xb] = "an arithmetic-coded", [0xc] = "an arithmetic-coded",
        [0xd] = "a hierarchical",      [0xe] = "a hierarchical",      [0xf] = "a hierarchical",
    };
    return names[marker - SOF0];
}

static int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

static vd_code place_component(parser *p, vd_jpeg_component *c, int h_max, int v_max, vd_error *err) {
    vd_jpeg *j = &p->jpeg;
    if (h_max % c->h != 0 || v_max % c->v != 0) /* the decoder's resampling knows whole factors only */
        return vd_fail(err, VD_ERR_DATA, "its sampling factors %dx%d do not divide %dx%d", c->h, c->v, h_max,
                       v_max);
    c->blocks_x = divide_up(divide_up(j->width * c->h, h_max), 8);
    c->blocks_y = divide_up(divide_up(j->height * c->v, v_max), 8);
    c->stride = j->mcus_x * c->h;
    if (!j->progressive)
        return VD_OK;
    size_t blocks = (size_t)c->stride * j->mcus_y * c->v;
    c->nonzero = calloc(blocks, sizeof *c->nonzero);
    return c->nonzero ? VD_OK
                      : vd_fail_memory(err, "scanning a progressive JPEG", blocks * sizeof *c->nonzero);
}

static vd_code take_components(parser *p, const uint8_t *at, vd_error *err) {
    vd_jpeg *j = &p->jpeg;
    int h_max = 1, v_max = 1;
    for (int i = 0; i < j->count; i++, at += 3) {
        vd_jpeg_component *c = &j->components[i];
        *c = (vd_jpeg_component){.id = at[0], .h = at[1] >> 4, .v = at[1] & 15, .quantizer = at[2]};
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4 || c->quantizer >= VD_JPEG_TABLES)
            return vd_fail(err, VD_ERR_DATA,
                           "component %d has sampling factors %dx%d and quantization table %d", i + 1, c->h,
                           c->v, c->quantizer);
        for (int k = 0; k < i; k++)
            if (j->components[k].id == c->id)
                return vd_fail(err, VD_ERR_DATA, "components %d and %d have the same id", k + 1, i + 1);
        memset(c->missing, VD_JPEG_UNSENT, sizeof c->missing);
        h_max = c->h > h_max ? c->h : h_max;
        v_max = c->v > v_max ? c->v : v_max;
    }
    j->mcus_x = divide_up(j->width, 8 * h_max);
    j->mcus_y = divide_up(j->height, 8 * v_max);
    for (int i = 0; i < j->count; i++)
        VD_TRY(place_component(p, &j->components[i], h_max, v_max, err));
    return VD_OK;
}

static vd_code take_frame(parser *p, int marker, segment s, vd_error *err) {
    vd_jpeg *j = &p->jpeg;
    const char *unread = name_unread_process(marker);
    if (unread)
        return vd_fail(err, VD_ERR_DATA, "it is %s JPEG; give a baseline or progressive one", unread);
    if (j->width > 0)
        return vd_fail(err, VD_ERR_DATA, "it has a second frame (SOF)");
    if (left(&s) < 6 || left(&s) != 6 + 3 * (size_t)s.at[5])
        return fail_length("SOF", err);
    if (s.at[0] != 8)
        return vd_fail(err, VD_ERR_DATA, "it has %d bits per sample; a JPEG of 8 is read", s.at[0]);
    VD_TRY(vd_scan_check_size(vd_be16(s.at + 3), vd_be16(s.at + 1), err));
    j->height = p->out->height = vd_be16(s.at + 1);
    j->width = p->out->width = vd_be16(s.at + 3);
    j->count = s.at[5];
    if (j->count == 4)
        return vd_fail(err, VD_ERR_DATA, "it is a CMYK or YCCK JPEG; convert it to RGB");
    if (j->count != 1 && j->count != 3)
        return vd_fail(err, VD_ERR_DATA, "it has %d components; 1 or 3 are read", j->count);
    j->progressive = marker == SOF2;
    return take_components(p, s.at + 6, err);
}

static vd_code take_parts(parser *p, const uint8_t *at, vd_jpeg_scan_header *scan, vd_error *err) {
    vd_jpeg *j = &p->jpeg;
    int blocks = 0;
    for (int part = 0; part < scan->count; part++, at += 2) {
        vd_jpeg_component *c = NULL;
        for (int i = 0; i < j->count; i++)
            if (j->components[i].id == at[0])
                c = &j->components[i];
        for (int i = 0; i < part; i++)
            if (scan->parts[i].component == c)
                c = NULL;
        if (!c || at[1] >> 4 >= VD_JPEG_TABLES || (at[1] & 15) >= VD_JPEG_TABLES)
            return vd_fail(err, VD_ERR_DATA, "a scan names component %d or tables %02x, which do not exist",
                           at[0], at[1]);
        scan->parts[part].component = c;
        scan->parts[part].dc = &j->dc[at[1] >> 4];
        scan->parts[part].ac = &j->ac[at[1] & 15];
        blocks += c->h * c->v;
    }
    if (scan->count > 1 && blocks > 10) /* T.81 B.2.3 */
        return vd_fail(err, VD_ERR_DATA, "a scan has %d blocks per unit; 10 can be", blocks);
    return VD_OK;
}

/* Each bit of a coefficient comes once, the high ones first, and DC before all others. */
static vd_code check_order(const vd_jpeg_component *c, const vd_jpeg_scan_header *s, int last,
                           vd_error *err) {
    int expected = s->high == 0 ? VD_JPEG_UNSENT : s->high;
    for (int k = s->first; k <= last; k++)
        if (c->missing[k] != expected)
            return vd_fail(err, VD_ERR_DATA,
                           "coefficient %d of component %d is sent twice or in a wrong order", k, c->id);
    if (s->first > 0 && c->missing[0] == VD_JPEG_UNSENT)
        return vd_fail(err, VD_ERR_DATA, "component %d has details before its averages", c->id);
    return VD_OK;
}

/* What a scan sends must exist: its tables, coefficients that its process has, earlier bits to refine. */
static vd_code check_scan(const vd_jpeg *j, const vd_jpeg_scan_header *s, vd_error *err) {
    bool band = j->progressive
                    ? (s->first == 0 ? s->last == 0 : s->first <= s->last && s->last < 64 && s->count == 1)
                    : s->first == 0;
    bool bits = j->progressive ? s->low <= 13 && (s->high == 0 || s->high == s->low + 1)
                               : s->low == 0 && s->high == 0;
    if (!band || !bits)
        return vd_fail(err, VD_ERR_DATA, "a scan of coefficients %d to %d, bits %d to %d cannot be", s->first,
                       s->last, s->high, s->low);
    bool needs_dc = s->first == 0 && s->high == 0, needs_ac = !j->progressive || s->first > 0;
    for (int part = 0; part < s->count; part++) {
        const vd_jpeg_component *c = s->parts[part].component;
        if ((needs_dc && !s->parts[part].dc->defined) || (needs_ac && !s->parts[part].ac->defined) ||
            !j->quantizers[c->quantizer])
            return vd_fail(err, VD_ERR_DATA, "a scan uses a table that was not defined");
        VD_TRY(check_order(c, s, j->progressive ? s->last : 63, err));
    }
    return VD_OK;
}

static vd_code take_scan(parser *p, segment s, vd_error *err) {
    vd_jpeg *j = &p->jpeg;
    if (j->width == 0)
        return vd_fail(err, VD_ERR_DATA, "a scan comes before the frame header");
    if (++p->scans > MOST_SCANS)
        return vd_fail(err, VD_ERR_DATA, "it has more than %d scans", MOST_SCANS);
    if (left(&s) < 1 || left(&s) != 4 + 2 * (size_t)s.at[0] || s.at[0] < 1 || s.at[0] > j->count)
        return fail_length("SOS", err);
    const uint8_t *tail = s.end - 3;
    vd_jpeg_scan_header scan = {
        .count = s.at[0], .first = tail[0], .last = tail[1], .high = tail[2] >> 4, .low = tail[2] & 15};
    VD_TRY(take_parts(p, s.at + 1, &scan, err));
    VD_TRY(check_scan(j, &scan, err));
    VD_TRY(vd_jpeg_walk(j, &scan, &p->at, p->end, err));
    int last = j->progressive ? scan.last : 63;
    for (int part = 0; part < scan.count; part++)
        memset(scan.parts[part].component->missing + scan.first, scan.low, (size_t)(last - scan.first + 1));
    return VD_OK;
}

static vd_code take_segment(parser *p, int marker, vd_error *err) {
    segment s = {0};
    VD_TRY(next_segment(p, &s, err));
    switch (marker) {
    case DQT:
        return take_dqt(p, s, err);
    case DHT:
        return take_dht(p, s, err);
    case DRI:
        return take_dri(p, s, err);
    case SOS:
        return take_scan(p, s, err);
    case APP1:
        return take_app1(p, s);
    default:
        if (marker >= SOF0 && marker <= SOF15)
            return take_frame(p, marker, s, err);
        if ((marker >= APP0 && marker <= APP15) || marker == COM)
            return VD_OK;
        return vd_fail(err, VD_ERR_DATA, "it holds the marker FF%02X, which does not belong into a JPEG",
                       marker);
    }
}

static vd_code walk_markers(parser *p, vd_error *err) {
    for (;;) {
        int marker;
        VD_TRY(next_marker(p, &marker, err));
        if (marker == EOI)
            break;
        if (marker < RST0 || marker > RST7) /* one may stand behind the last unit of a scan */
            VD_TRY(take_segment(p, marker, err));
    }
    for (int i = 0; i < p->jpeg.count; i++)
        for (int k = 0; k < 64; k++)
            if (p->jpeg.components[i].missing[k] > 0)
                return vd_fail(err, VD_ERR_DATA,
                               "it is cut short: the scans end before component %d is complete",
                               p->jpeg.components[i].id);
    return p->jpeg.count > 0 ? VD_OK : vd_fail(err, VD_ERR_DATA, "it has no picture (SOF)");
}

vd_code vd_jpeg_scan(const uint8_t *bytes, size_t count, vd_scan *scan, vd_error *err) {
    if (count < 4)
        return fail_cut(err);
    parser p = {.at = bytes + 2, .end = bytes + count, .out = scan};
    vd_code code = walk_markers(&p, err);
    for (int i = 0; i < VD_JPEG_COMPONENTS; i++)
        free(p.jpeg.components[i].nonzero);
    scan->bytes = bytes;
    scan->count = (size_t)(p.at - bytes); /* what follows EOI is nobody's business */
    return code;
}
