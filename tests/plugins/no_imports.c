/* A library that imports nothing. */
int no_imports_add(int a, int b);

int
no_imports_add(int a, int b)
{
    return a + b;
}
