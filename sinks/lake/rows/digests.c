/*
 * What rows add up to: the same as texts.py and hashing.py, with the SHA instructions of x86 processors.
 *
 * Each row's text is written, hashed with SHA-256 (FIPS 180-4), stretched by seven more hashes of that hash and a byte
 * 1 to 7, and the 32 numbers of 64 bits are added to the sums. Needs a C compiler and the C library alone:
 * hatch_build.py compiles it when pgwitness is installed, and native.py holds it against Python before it is used.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

#define BLOCK 64
#define HASHES 8 /* of a row: its own, and seven that stretch it */

static const uint32_t BEGIN[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* Take blocks into the state, which the processor's instructions hold as ABEF and CDGH. */
__attribute__((target("sha,sse4.1")))
static void take(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    const __m128i bytes = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
    __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);

    for (; count; count--, blocks += BLOCK) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)blocks + i), bytes);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            const __m128i now = w[i & 3], next = w[(i + 1) & 3], last = w[(i + 3) & 3];
            const __m128i added = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)K + i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, added);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(added, 0x0e));
            if (i < 12) {
                const __m128i seventh = _mm_alignr_epi8(last, w[(i + 2) & 3], 4);
                w[i & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(now, next), seventh), last);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }

    const __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static int has_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
}

static void add(uint64_t sums[4], const uint32_t state[8])
{
    for (int lane = 0; lane < 4; lane++)
        sums[lane] += (uint64_t)state[2 * lane] << 32 | state[2 * lane + 1];
}

static void write_length(uint8_t *end_of_block, uint64_t bytes)
{
    uint64_t bits = bytes * 8;
    for (int i = 1; i <= 8; i++, bits >>= 8)
        end_of_block[-i] = (uint8_t)bits;
}

/* A row's text as it is written: what fills whole blocks goes into the state when `waiting` is full. */
struct text {
    uint32_t state[8];
    uint64_t length;
    size_t used;
    uint8_t waiting[64 * BLOCK];
};

static void begin(struct text *text)
{
    memcpy(text->state, BEGIN, sizeof BEGIN);
    text->length = text->used = 0;
}

static void put(struct text *text, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    text->length += count;
    while (text->used + count >= sizeof text->waiting) {
        const size_t fits = sizeof text->waiting - text->used;
        memcpy(text->waiting + text->used, from, fits);
        take(text->state, text->waiting, sizeof text->waiting / BLOCK);
        from += fits, count -= fits, text->used = 0;
    }
    if (count)
        memcpy(text->waiting + text->used, from, count);
    text->used += count;
}

static void put_number(struct text *text, uint64_t value, int negative)
{
    char digits[21];
    size_t first = sizeof digits;
    do
        digits[--first] = (char)('0' + value % 10);
    while (value /= 10);
    if (negative)
        digits[--first] = '-';
    put(text, digits + first, sizeof digits - first);
}

/* End the text: `state` is its hash. */
static void end(struct text *text)
{
    const size_t whole = text->used / BLOCK, rest = text->used % BLOCK, ends = rest < BLOCK - 8 ? 1 : 2;
    uint8_t last[2 * BLOCK] = {0};
    take(text->state, text->waiting, whole);
    memcpy(last, text->waiting + whole * BLOCK, rest);
    last[rest] = 0x80;
    write_length(last + ends * BLOCK, text->length);
    take(text->state, last, ends);
}

static void stretch(uint64_t sums[4 * HASHES], const uint32_t row[8])
{
    uint8_t block[BLOCK] = {0};
    for (int i = 0; i < 32; i++)
        block[i] = (uint8_t)(row[i / 4] >> (24 - 8 * (i % 4)));
    block[33] = 0x80;
    write_length(block + BLOCK, 33);
    for (int tag = 1; tag < HASHES; tag++) {
        uint32_t state[8];
        memcpy(state, BEGIN, sizeof BEGIN);
        block[32] = (uint8_t)tag;
        take(state, block, 1);
        add(sums + 4 * tag, state);
    }
}

enum kind { WRITTEN, TEXT, INT32, INT64, UINT64, LIST };

/*
 * A column of Arrow's. Texts lie in `values`, from `offsets[i]` to `offsets[i + 1]`; of a list these are its items, from
 * `lists[i]` to `lists[i + 1]` in numbers of items, the first of which is item `first`. What is WRITTEN, and items of
 * lists, have name, type and length in them already; a place among them stands in `places`, if there is one.
 */
struct column {
    int64_t kind;
    const uint8_t *name; /* with what comes before the value: `NAME=s` */
    int64_t name_length;
    const uint8_t *valid; /* bits of what is not null, from `valid_from` on; NULL: all */
    int64_t valid_from;
    const int32_t *offsets;
    const void *values;
    const int32_t *places;
    const int32_t *lists;
    int64_t first;
};

static void put_text(struct text *text, const struct column *column, int64_t place)
{
    const int32_t from = column->offsets[place];
    put(text, (const uint8_t *)column->values + from, (size_t)(column->offsets[place + 1] - from));
}

static void put_signed(struct text *text, int64_t value)
{
    put_number(text, value < 0 ? -(uint64_t)value : (uint64_t)value, value < 0);
}

static void put_list(struct text *text, const struct column *column, int64_t row)
{
    const int32_t from = column->lists[row], until = column->lists[row + 1];
    put_number(text, (uint64_t)(until - from), 0);
    put(text, ":", 1);
    for (int64_t item = from - column->first; item < until - column->first; item++)
        put_text(text, column, column->places ? column->places[item] : item);
}

static void put_value(struct text *text, const struct column *column, int64_t row)
{
    const int64_t bit = column->valid_from + row;
    if (column->valid && !(column->valid[bit / 8] >> bit % 8 & 1))
        return;
    if (column->kind == WRITTEN) {
        put_text(text, column, column->places ? column->places[row] : row);
        return;
    }
    put(text, column->name, (size_t)column->name_length);
    switch (column->kind) {
    case TEXT:
        put_number(text, (uint64_t)(column->offsets[row + 1] - column->offsets[row]), 0);
        put(text, ":", 1);
        put_text(text, column, row);
        break;
    case INT32:
        put_signed(text, ((const int32_t *)column->values)[row]);
        break;
    case INT64:
        put_signed(text, ((const int64_t *)column->values)[row]);
        break;
    case UINT64:
        put_number(text, ((const uint64_t *)column->values)[row], 0);
        break;
    case LIST:
        put_list(text, column, row);
        break;
    }
    put(text, ";", 1);
}

/*
 * Add rows to `sums`; each one's text begins with `head`. Gives 0, and adds nothing, where the processor has no such
 * instructions. The number in the name grows when any of this changes, so that a library of another version is not
 * taken for this one.
 */
int pgwitness_add_rows_2(
    const uint8_t *head, int64_t head_length, const struct column *columns, int64_t count, int64_t rows,
    uint64_t sums[4 * HASHES])
{
    if (!has_instructions())
        return 0;
    for (int64_t row = 0; row < rows; row++) {
        struct text text;
        begin(&text);
        put(&text, head, (size_t)head_length);
        for (int64_t i = 0; i < count; i++)
            put_value(&text, columns + i, row);
        end(&text);
        add(sums, text.state);
        stretch(sums, text.state);
    }
    return 1;
}

#else

int pgwitness_add_rows_2(void)
{
    return 0;
}

#endif
