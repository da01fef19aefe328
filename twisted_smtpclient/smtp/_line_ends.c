/* The same as smtp/line_ends.py does in Python, where each octet costs a step of a loop: here
 * memchr() passes over those that end no line.
 *
 * Octets are read and never written; nothing is kept between calls.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

static const char *
next(const char *from, const char *end, int octet)
{
    /* memchr() must not be given the place behind a buffer, not even for no octets of it. */
    return from < end ? memchr(from, octet, (size_t)(end - from)) : NULL;
}

static PyObject *
bare_line_ends(PyObject *module, PyObject *message)
{
    Py_buffer octets;
    if (PyObject_GetBuffer(message, &octets, PyBUF_SIMPLE) < 0)
        return NULL;
    const char *end = (const char *)octets.buf + octets.len;
    const char *feed = next(octets.buf, end, '\n');
    const char *carriage = next(octets.buf, end, '\r');
    Py_ssize_t bare = 0;
    /* Each is the next of its kind that is not counted yet. */
    while (feed != NULL || carriage != NULL) {
        if (carriage == NULL || (feed != NULL && feed < carriage)) {
            bare++;
            feed = next(feed + 1, end, '\n');
            continue;
        }
        if (feed == carriage + 1)
            feed = next(feed + 1, end, '\n');
        else
            bare++;
        carriage = next(carriage + 1, end, '\r');
    }
    PyBuffer_Release(&octets);
    return PyLong_FromSsize_t(bare);
}

static PyObject *
has_dotted_line(PyObject *module, PyObject *message)
{
    Py_buffer octets;
    if (PyObject_GetBuffer(message, &octets, PyBUF_SIMPLE) < 0)
        return NULL;
    const char *end = (const char *)octets.buf + octets.len;
    const char *line = octets.buf;
    int found = 0;
    while (line != NULL && line < end && !(found = *line == '.')) {
        line = next(line, end, '\n');
        if (line != NULL)
            line++;
    }
    PyBuffer_Release(&octets);
    return PyBool_FromLong(found);
}

static PyMethodDef functions[] = {
    {"bare_line_ends", bare_line_ends, METH_O, NULL},
    {"has_dotted_line", has_dotted_line, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_line_ends",
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__line_ends(void)
{
    return PyModuleDef_Init(&definition);
}
