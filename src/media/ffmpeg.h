/* What the two writers on FFmpeg's libraries share: a muxer that writes through vd_outfile, and silence. */
#ifndef VD_MEDIA_FFMPEG_H
#define VD_MEDIA_FFMPEG_H

#include "base/file.h"
#include "media/writer.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

/* An encoder, a muxer and the file behind them. Zero-initialise; vd_movie_close is due whatever happened. */
typedef struct vd_movie {
    const char *path;
    vd_outfile file;
    AVFormatContext *muxer;
    AVCodecContext *encoder; /* the writer allocates and opens it before vd_movie_open */
    AVPacket *packet;
    bool in_body;      /* the header is written, the trailer is not */
    bool write_failed; /* the file takes no more bytes */
    vd_error *err;     /* filled by the callbacks that FFmpeg calls */
} vd_movie;

/* Opens the file and writes the header of `format` with one stream like the encoder's. `options` may be NULL.
 */
vd_code vd_movie_open(vd_movie *movie, const char *format, bool overwrite, const char *comment,
                      AVDictionary **options);
/* Encodes one frame (NULL: drains) and writes the packets that come out. */
vd_code vd_movie_encode(vd_movie *movie, AVFrame *frame);
/* Drains the encoder and completes the file under its name. */
vd_code vd_movie_finish(vd_movie *movie);
void vd_movie_close(vd_movie *movie);

/* Fails when `result` is one of FFmpeg's negative codes: "cannot write 'PATH': WHAT: reason". A failed write
 * of the file says more and wins. */
vd_code vd_movie_check(vd_movie *movie, int result, const char *what);

/* FFmpeg logs through one callback per process. Between these two the calling thread's messages are dropped;
 * those of other threads go where they went. */
void vd_ffmpeg_hush(void);
void vd_ffmpeg_unhush(void);

#endif
