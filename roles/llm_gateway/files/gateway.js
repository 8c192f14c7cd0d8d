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
    let body;
    try {
        body = JSON.parse(r.requestText);
    } catch (e) {
        body = null;
    }
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
