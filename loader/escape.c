/* Names that anything may stand in, made fit for one line of a message. No memory is taken: who calls may be about to abort. */
#include "escape.h"

#include <string.h>

/* How many bytes from here on are one character of UTF-8 that may be printed; 0: none. */
static size_t
character_length(const unsigned char *text)
{
    unsigned char first = text[0];
    if (first < 0x80)
        return first >= 0x20 && first != 0x7f;
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    static const unsigned long least[] = {0, 0, 0xa0, 0x800, 0x10000}; /* up to U+009F they are control characters */
    if (first < 0xc2 || first > 0xf4)
        return 0;
    unsigned long code = first & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3f);
    }
    bool possible = code >= least[length] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    return possible ? length : 0;
}

char *
escape(char *out, size_t size, const char *text, bool quoted)
{
    static const char digits[] = "0123456789abcdef";
    char *to = out, *last = out + size - 1;
    for (const unsigned char *from = (const unsigned char *)text; *from != 0;) {
        size_t length = quoted && (*from == '"' || *from == '\\') ? 0 : character_length(from);
        if ((size_t)(last - to) < (length != 0 ? length : 4))
            break;
        if (length == 0) {
            memcpy(to, (char[]){'\\', 'x', digits[*from >> 4], digits[*from & 15]}, 4);
            to += 4;
            from++;
        } else {
            memcpy(to, from, length);
            to += length;
            from += length;
        }
    }
    *to = 0;
    return out;
}
