/*
 * libxml2: a real file is parsed, walked, written to memory again and freed, over and over. The
 * host frees the text that xmlDocDumpMemory() returns with its own free(), as libxml2's users do:
 * a block that crosses from the module to the host.
 *
 * Prototypes are those of libxml2's reference (parser.h, tree.h, xmlerror.h).
 */
#include "demo.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XML_PARSE_NOERROR (1 << 5) /* don't print errors: they are reported here */
#define XML_PARSE_NOWARNING (1 << 6)
#define XML_PARSE_NONET (1 << 11)

struct xml_node;
struct xml_doc;

struct xml_error { /* the public beginning of xmlError */
    int domain;
    int code;
    const char *message;
};

#define XML_API(X)                                                                                 \
    X(void, xmlInitParser, (void))                                                                 \
    X(void, xmlCleanupParser, (void))                                                              \
    X(struct xml_doc *, xmlReadFile, (const char *, const char *, int))                            \
    X(void, xmlFreeDoc, (struct xml_doc *))                                                        \
    X(struct xml_node *, xmlDocGetRootElement, (const struct xml_doc *))                           \
    X(struct xml_node *, xmlFirstElementChild, (struct xml_node *))                                \
    X(struct xml_node *, xmlNextElementSibling, (struct xml_node *))                               \
    X(void, xmlDocDumpMemory, (struct xml_doc *, unsigned char **, int *))                         \
    X(const struct xml_error *, xmlGetLastError, (void))

static struct {
#define MEMBER(result, name, parameters) result(*name) parameters;
    XML_API(MEMBER)
#undef MEMBER
} api;

static bool
prepare(struct work *work)
{
#define LOOK_UP(result, name, parameters)                                                          \
    if ((api.name = (result(*) parameters)work_symbol(work, #name)) == NULL)                       \
        return false;
    XML_API(LOOK_UP)
#undef LOOK_UP
    api.xmlInitParser();
    return true;
}

static uint64_t
walk(struct xml_node *node)
{
    uint64_t count = 0;
    for (; node != NULL; node = api.xmlNextElementSibling(node))
        count += 1 + walk(api.xmlFirstElementChild(node));
    return count;
}

static bool
parse(struct work *work)
{
    const struct input *input = &work->demo->input;
    const int options = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING;

    struct xml_doc *doc = api.xmlReadFile(input->xml_file, NULL, options);
    if (doc == NULL) {
        const struct xml_error *error = api.xmlGetLastError();
        const char *message = error != NULL && error->message != NULL ? error->message : "";
        return work_fails(work, "%s: libxml2's error %d: %.*s", input->xml_file,
                          error != NULL ? error->code : 0, (int)strcspn(message, "\n"), message);
    }
    uint64_t in_tree = walk(api.xmlDocGetRootElement(doc));

    unsigned char *text = NULL;
    int length;
    api.xmlDocDumpMemory(doc, &text, &length);
    uint64_t in_text = text != NULL ? count_elements((const char *)text) : 0;
    free(text);
    api.xmlFreeDoc(doc);

    if (in_tree != input->xml_elements || in_text != input->xml_elements)
        return work_fails(work, "%s: %" PRIu64 " elements in the tree and %" PRIu64
                          " in its text, not %" PRIu64, input->xml_file, in_tree, in_text,
                          input->xml_elements);
    return true;
}

static bool
run(struct work *work)
{
    while (!work->demo->stop) {
        if (!parse(work))
            return false;
        atomic_fetch_add(&work->rounds, 1);
        work_says(work, "%" PRIu64 " rounds of parsing", work->rounds);
    }
    return true;
}

static bool
finish(struct work *work)
{
    (void)work;
    api.xmlCleanupParser();
    return true;
}

struct work work_xml = {
    .name = "libxml2",
    .library = "libxml2.so.2",
    .package = "libxml2",
    .prepare = prepare,
    .run = run,
    .finish = finish,
};
