/* A plugin whose constructor and destructor call the host, which may call the loader in turn. */
void host_callback(const char *moment) __attribute__((weak));

__attribute__((constructor)) static void
begin(void)
{
    if (host_callback)
        host_callback("constructor");
}

__attribute__((destructor)) static void
end(void)
{
    if (host_callback)
        host_callback("destructor");
}
