// What nginx cannot say in its own words: which key a caller holds, and which model a request is for.
// tables.js has the services and what each key may use.
import crypto from 'crypto';
import tables from 'tables.js';

const BEARER = /^bearer +(\S+) *$/i;

function presented(r) {
    const said = r.headersIn['Authorization'];
    if (said) {
        const found = BEARER.exec(said);
        return found ? found[1] : '';
    }
    return r.headersIn['X-Api-Key'] || '';
}

function digest(r) {
    return crypto.createHash('sha256').update(presented(r)).digest('hex');
}

function allowed(r) {
    return tables.allowed[r.variables.llm_key] || [];
}

function answer(r, status, content) {
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, JSON.stringify(content));
}

function refuse(r, status, code, message) {
    answer(r, status, {error: {message: message, type: 'invalid_request_error', param: 'model', code: code}});
}

function listed(at) {
    return {id: tables.groups[at].model, object: 'model', created: 0, owned_by: 'llmfleet'};
}

function written_plainly(r) {
    return r.variables.request_uri.split('?')[0] === r.uri;
}

function models(r) {
    const name = r.variables.llm_name;
    const shown = allowed(r).filter(at => !name || tables.names[name] === at);
    answer(r, 200, {object: 'list', data: shown.map(listed)});
}

function model(r) {
    const wanted = r.uri.slice('/v1/models/'.length);
    const found = allowed(r).filter(at => tables.groups[at].model === wanted);
    if (found.length) {
        answer(r, 200, listed(found[0]));
    } else {
        unknown(r, wanted, allowed(r));
    }
}

function unknown(r, wanted, usable) {
    const names = usable.map(at => tables.groups[at].model).join(', ') || 'none';
    // it may be anything, also what is no text
    const shown = String(JSON.stringify(wanted)).slice(0, 100).replace(/[^ -~]/g, '?');
    refuse(r, 404, 'model_not_found', 'there is no model ' + shown + ' for this key here; there are: ' + names);
}

// Returns the end of the string that begins at `start`, -1 when it has none.
function string_end(text, start) {
    let end = start, slashes;
    do {
        end = text.indexOf('"', end + 1);
        slashes = 0;
        while (end > 0 && text[end - 1 - slashes] === '\\') {
            slashes += 1;
        }
    } while (slashes % 2);
    return end;
}

// Returns the fields of the outermost object that are strings, null for what is none. Whether the rest is right is for
// the engine to say.
function outer_strings(text) {
    const mark = /["{}[\]]/g, fields = {};
    let depth = 0, key = null, found;
    if (!/^\s*\{/.test(text)) {
        return null;
    }
    while ((found = mark.exec(text))) {
        if (found[0] !== '"') {
            depth += found[0] === '{' || found[0] === '[' ? 1 : -1;
            continue;
        }
        const end = string_end(text, found.index);
        if (end < 0) {
            return null;
        }
        mark.lastIndex = end + 1;
        if (depth !== 1) {
            continue;
        }
        const said = JSON.parse(text.slice(found.index, end + 1));
        if (/^\s*:/.test(text.slice(end + 1, end + 40))) {
            key = said;
            delete fields[key];
        } else if (key !== null) {
            fields[key] = said;
            key = null;
        }
    }
    return depth === 0 ? fields : null;
}

function parsed(text) {
    try {
        return JSON.parse(text);
    } catch (e) {
        // njs reads 32 levels, and descriptions of tools can have more
        try {
            return e.message.indexOf('deep') < 0 ? null : outer_strings(text);
        } catch (again) {
            return null;
        }
    }
}

// Returns the position of the group a request is for, -1 after it was refused.
function chosen(r, path) {
    const all = allowed(r);
    const usable = all.filter(at => tables.groups[at].paths.indexOf(path) >= 0);
    const name = r.variables.llm_name;
    if (name) {
        const at = tables.names[name];
        if (all.indexOf(at) >= 0) {
            return at;
        }
        unknown(r, name, usable);
        return -1;
    }
    const body = parsed(r.requestText);
    if (body === null || typeof body !== 'object' || Array.isArray(body)) {
        refuse(r, 400, 'invalid_json', 'the request is not a JSON object');
        return -1;
    }
    if (body.model === undefined || body.model === null || body.model === '') {
        if (usable.length === 1) {
            return usable[0];
        }
        refuse(r, 400, 'model_missing', 'say which `model` the request is for');
        return -1;
    }
    const known = all.filter(at => tables.groups[at].model === body.model);
    if (!known.length) {
        unknown(r, body.model, usable);
        return -1;
    }
    if (usable.indexOf(known[0]) < 0) {
        refuse(r, 400, 'wrong_path', 'this model answers at ' + tables.groups[known[0]].paths.join(', '));
        return -1;
    }
    return known[0];
}

function route(r) {
    if (!written_plainly(r)) {
        refuse(r, 404, 'not_found', 'there is nothing at this path; write it plainly');
        return;
    }
    const at = chosen(r, r.variables.llm_path);
    if (at >= 0) {
        r.internalRedirect('@llm_' + at);
    }
}

export default {digest, model, models, route};
