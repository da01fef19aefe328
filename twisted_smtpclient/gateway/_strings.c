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

static const char NAME[] = "\"message\"";
#define LENGTH ((Py_ssize_t)sizeof NAME - 1)

static int
is_name(const char *mark, const char *end)
{
    return end - mark >= LENGTH && memcmp(mark, NAME, (size_t)LENGTH) == 0;
}

static const char *
past_space(const char *from, const char *end)
{
    while (from < end && (*from == ' ' || *from == '\t' || *from == '\r' || *from == '\n'))
        from++;
    return from;
}

/* What stands behind the mark in front of the value whose name ends here; NULL where there is none. */
static const char *
value_of(const char *from, const char *end)
{
    from = past_space(from, end);
    if (from == end || *from != ':')
        return NULL;
    from = past_space(from + 1, end);
    return from < end && *from == '"' ? from + 1 : NULL;
}

static int
has_backslash(const char *from, const char *end)
{
    return from < end && memchr(from, '\\', (size_t)(end - from)) != NULL;
}

/* A message, and the strings of its line. */
struct found {
    const char *begun;
    const char *ended;
    Py_ssize_t marks;
};

static int
find_message(const char *start, const char *end, struct found *found)
{
    const char *from = start;
    const char *mark;
    found->begun = found->ended = NULL;
    found->marks = 0;
    while ((mark = next_mark(from, end)) != NULL) {
        found->marks++;
        from = mark + 1;
        if (!is_name(mark, end))
            continue;
        if (found->begun != NULL)
            return 0;
        found->begun = value_of(mark + LENGTH, end);
        if (found->begun == NULL)
            return 0;
        found->ended = next_mark(found->begun, end);
        if (found->ended == NULL)
            return 0;
        /* Behind the name's second mark, and the one in front of the value. */
        found->marks += 2;
        from = found->ended;
    }
    return found->begun != NULL && !has_backslash(start, found->begun) && !has_backslash(found->ended, end);
}

/* Octets that are copied, for to look at a copy costs less than at a view. */
#define SHORT 65536

static PyObject *
part_of(PyObject *line, const char *octets, Py_ssize_t begun, Py_ssize_t ended)
{
    if (ended - begun <= SHORT)
        return PyBytes_FromStringAndSize(octets + begun, ended - begun);
    PyObject *view = PyMemoryView_FromObject(line);
    if (view == NULL)
        return NULL;
    PyObject *part = PySequence_GetSlice(view, begun, ended);
    Py_DECREF(view);
    return part;
}

static PyObject *
message_apart(PyObject *module, PyObject *line)
{
    Py_buffer octets;
    struct found found;
    if (PyObject_GetBuffer(line, &octets, PyBUF_SIMPLE) < 0)
        return NULL;
    const char *start = octets.buf;
    const char *end = start + octets.len;
    PyObject *apart = NULL;
    if (!find_message(start, end, &found)) {
        apart = Py_NewRef(Py_None);
    }
    else {
        Py_ssize_t before = found.begun - start;
        Py_ssize_t behind = end - found.ended;
        PyObject *bare = PyBytes_FromStringAndSize(NULL, before + behind);
        PyObject *message = part_of(line, start, before, found.ended - start);
        PyObject *strings = PyLong_FromSsize_t(found.marks / 2);
        if (bare != NULL && message != NULL && strings != NULL) {
            memcpy(PyBytes_AS_STRING(bare), start, (size_t)before);
            memcpy(PyBytes_AS_STRING(bare) + before, found.ended, (size_t)behind);
            apart = PyTuple_Pack(3, bare, message, strings);
        }
        Py_XDECREF(bare);
        Py_XDECREF(message);
        Py_XDECREF(strings);
    }
    PyBuffer_Release(&octets);
    return apart;
}

static PyMethodDef functions[] = {
    {"strings_in", strings_in, METH_O, NULL},
    {"message_apart", message_apart, METH_O, NULL},
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
