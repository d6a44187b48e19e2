/* With more thread-local variables than a program has. */
char *large_tls_middle(void);

static __thread char large[256 * 1024];

char *
large_tls_middle(void)
{
    return large + sizeof large / 2;
}
