#include "media/ffmpeg.h"

#include <libavutil/error.h>
#include <pthread.h>

enum { BUFFER_BYTES = 1 << 16 };

static _Thread_local bool hushed;

static void log_unless_hushed(void *context, int level, const char *format, va_list arguments) {
    if (!hushed)
        av_log_default_callback(context, level, format, arguments);
}

static void install_log(void) {
    av_log_set_callback(log_unless_hushed);
}

void vd_ffmpeg_hush(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_log);
    hushed = true;
}

void vd_ffmpeg_unhush(void) {
    hushed = false;
}

vd_code vd_movie_check(vd_movie *movie, int result, const char *what) {
    if (movie->write_failed)
        return movie->err->code;
    if (result >= 0)
        return VD_OK;
    if (result == AVERROR(ENOMEM))
        return vd_fail(movie->err, VD_ERR_UNAVAILABLE, "cannot write '%s': out of memory in FFmpeg's %s",
                       movie->path, what);
    char reason[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(result, reason, sizeof reason);
    return vd_fail(movie->err, VD_ERR_INTERNAL, "cannot write '%s': FFmpeg's %s failed: %s", movie->path,
                   what, reason);
}

#if LIBAVFORMAT_VERSION_MAJOR >= 61
static int write_bytes(void *user, const uint8_t *bytes, int count) {
#else
static int write_bytes(void *user, uint8_t *bytes, int count) {
#endif
    vd_movie *movie = user;
    if (!movie->write_failed && vd_outfile_write(&movie->file, bytes, (size_t)count, movie->err) == VD_OK)
        return count;
    movie->write_failed = true;
    return AVERROR(EIO);
}

static int64_t seek_bytes(void *user, int64_t offset, int whence) {
    vd_movie *movie = user;
    int64_t position;
    if (whence & AVSEEK_SIZE)
        return AVERROR(ENOSYS);
    if (!movie->write_failed &&
        vd_outfile_seek(&movie->file, offset, whence & ~AVSEEK_FORCE, &position, movie->err) == VD_OK)
        return position;
    movie->write_failed = true;
    return AVERROR(EIO);
}

static vd_code allocate(vd_movie *movie, const char *format) {
    VD_TRY(vd_movie_check(movie, avformat_alloc_output_context2(&movie->muxer, NULL, format, NULL), "muxer"));
    movie->packet = av_packet_alloc();
    uint8_t *buffer = av_malloc(BUFFER_BYTES);
    if (buffer)
        movie->muxer->pb = avio_alloc_context(buffer, BUFFER_BYTES, 1, movie, NULL, write_bytes, seek_bytes);
    if (!movie->muxer->pb)
        av_free(buffer);
    AVStream *stream = avformat_new_stream(movie->muxer, NULL);
    if (!movie->packet || !movie->muxer->pb || !stream)
        return vd_movie_check(movie, AVERROR(ENOMEM), "muxer");
    stream->time_base = movie->encoder->time_base;
    stream->avg_frame_rate = movie->encoder->framerate;
    return vd_movie_check(movie, avcodec_parameters_from_context(stream->codecpar, movie->encoder), "muxer");
}

vd_code vd_movie_open(vd_movie *movie, const char *format, bool overwrite, const char *comment,
                      AVDictionary **options) {
    VD_TRY(vd_outfile_open(&movie->file, movie->path, overwrite, movie->err));
    VD_TRY(allocate(movie, format));
    movie->muxer->flags |= AVFMT_FLAG_BITEXACT;
    if (comment)
        VD_TRY(vd_movie_check(movie, av_dict_set(&movie->muxer->metadata, "comment", comment, 0), "muxer"));
    VD_TRY(vd_movie_check(movie, avformat_write_header(movie->muxer, options), "muxer"));
    movie->in_body = true;
    return VD_OK;
}

vd_code vd_movie_encode(vd_movie *movie, AVFrame *frame) {
    VD_TRY(vd_movie_check(movie, avcodec_send_frame(movie->encoder, frame), "encoder"));
    for (;;) {
        int result = avcodec_receive_packet(movie->encoder, movie->packet);
        if (result == AVERROR(EAGAIN) || result == AVERROR_EOF)
            return VD_OK;
        VD_TRY(vd_movie_check(movie, result, "encoder"));
        av_packet_rescale_ts(movie->packet, movie->encoder->time_base, movie->muxer->streams[0]->time_base);
        movie->packet->stream_index = 0;
        VD_TRY(vd_movie_check(movie, av_interleaved_write_frame(movie->muxer, movie->packet), "muxer"));
    }
}

vd_code vd_movie_finish(vd_movie *movie) {
    VD_TRY(vd_movie_encode(movie, NULL));
    movie->in_body = false;
    VD_TRY(vd_movie_check(movie, av_write_trailer(movie->muxer), "muxer"));
    avio_flush(movie->muxer->pb);
    VD_TRY(vd_movie_check(movie, movie->muxer->pb->error, "muxer"));
    return vd_outfile_commit(&movie->file, movie->err);
}

void vd_movie_close(vd_movie *movie) {
    if (movie->in_body) {
        movie->write_failed = true;
        av_write_trailer(movie->muxer); /* some muxers free their parts only here */
    }
    if (movie->muxer && movie->muxer->pb) {
        av_freep(&movie->muxer->pb->buffer);
        avio_context_free(&movie->muxer->pb);
    }
    avformat_free_context(movie->muxer);
    avcodec_free_context(&movie->encoder);
    av_packet_free(&movie->packet);
    vd_outfile_abandon(&movie->file);
}
