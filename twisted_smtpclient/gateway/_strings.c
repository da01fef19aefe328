/* The same as gateway/strings.py does in Python: memchr() passes over what is no quotation mark,
 * such as a message of megabytes.
 *
 * Octets are read and never written; nothing is kept between calls.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

static const char *
next_mark(const char *from, const char *end)
{
    /* memchr() must not be given the place behind a buffer, not even for no octets of it. */
    return from < end ? memchr(from, '"', (size_t)(end - from)) : NULL;
}

static PyObject *
strings_in(PyObject *module, PyObject *line)
{
    Py_buffer octets;
    if (PyObject_GetBuffer(line, &octets, PyBUF_SIMPLE) < 0)
        return NULL;
    const char *end = (const char *)octets.buf + octets.len;
    const char *from = octets.buf;
    const char *mark;
    Py_ssize_t marks = 0;
    while ((mark = next_mark(from, end)) != NULL) {
        /* Behind an odd number of backslashes it is a part of its string.  Each backslash is looked
         * at once, for those that another mark stands behind are before "from". */
        const char *backslash = mark;
        while (backslash > from && backslash[-1] == '\\')
            backslash--;
        if ((mark - backslash) % 2 == 0)
            marks++;
        from = mark + 1;
    }
    PyBuffer_Release(&octets);
    return PyLong_FromSsize_t(marks / 2);
}

static PyMethodDef functions[] = {
    {"strings_in", strings_in, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_strings",
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__strings(void)
{
    return PyModuleDef_Init(&definition);
}
