/* A library that cannot do without static TLS. */
void *static_tls_place(void);

static __thread char place[64] __attribute__((tls_model("initial-exec")));

void *
static_tls_place(void)
{
    return place;
}
