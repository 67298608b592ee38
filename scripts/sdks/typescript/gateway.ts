/** What generated code lacks: typed errors, patience with rate limits, pages as one sequence, live events. */

import { AlarmsApi } from './apis/alarms-api.js';
import { AssetsApi } from './apis/assets-api.js';
import { AttributesApi } from './apis/attributes-api.js';
import { DevicesApi } from './apis/devices-api.js';
import { HealthApi } from './apis/health-api.js';
import { KeysApi } from './apis/keys-api.js';
import { RelationsApi } from './apis/relations-api.js';
import { RpcApi } from './apis/rpc-api.js';
import { TelemetryApi } from './apis/telemetry-api.js';
import { parseJson } from './json.js';
import type { LiveEventBody, Pagination, RpcEvent } from './models/index.js';
import { Configuration } from './runtime.js';

export type * from './models/index.js';

const TOO_MANY_REQUESTS = 429;
/** Before a broken stream is opened again, in seconds; doubled each time that it breaks at once. */
const FIRST_PAUSE = 0.25;
const LONGEST_PAUSE = 10;
const EVENTS = new Set(['telemetry', 'attribute', 'status', 'gap', 'gone', 'state']);
/** The gateway says something every 15 s on a stream that has no events. */
const SILENCE_SECONDS = 45;

/** The gateway refused a call or could not answer it; an `error` event of a stream, too. */
export class GatewayError extends Error {
    override readonly name = 'GatewayError';

    constructor(
        /** HTTP status. */
        readonly status: number,
        /** What went wrong, for programs: `RESOURCE_NOT_FOUND`, `CONFLICT`, ... Empty when a proxy answered. */
        readonly code: string,
        message: string,
        /** Which field and why, whose limit, what became of a command. */
        readonly details: Record<string, unknown>,
        /** Tell it to the operator. */
        readonly requestId: string | undefined,
        /** Seconds after which the same call may succeed; undefined when waiting does not help. */
        readonly retryAfter: number | undefined,
    ) {
        super(message);
    }

    static of(status: number, body: any, retryAfter?: number): GatewayError {
        const { error_code = '', message = 'no answer of the gateway itself', details, request_id } = body ?? {};
        return new GatewayError(status, error_code, message, details ?? {}, request_id ?? undefined, retryAfter);
    }

    static async from(answer: Response): Promise<GatewayError> {
        const text = await answer.text();
        const wait = answer.headers.get('Retry-After') ?? '';
        let body: unknown;
        try {
            body = parseJson(text);
        } catch {
            // A proxy's page.
        }
        return GatewayError.of(answer.status, body, /^\d+$/.test(wait) ? Number(wait) : undefined);
    }
}

/** One event of a stream: `telemetry`, `attribute`, `status`, `gap`, `gone`, or a command's `state`. */
export interface GatewayEvent<Body> {
    type: string;
    /** What to give as `lastEventId` to go on behind this event. */
    id: string | undefined;
    data: Body;
}

export interface GatewayOptions {
    /** Until an answer begins; commands wait up to 25 s for their device. 60 unless given. */
    timeoutSeconds?: number;
    /** That a call may wait in all when a rate limit refuses it; 0 throws at once. 60 unless given. */
    maxWaitSeconds?: number;
    fetch?: typeof fetch;
}

export interface StreamOptions {
    /** Of telemetry; all unless given. */
    keys?: string[];
    /** Tell of attributes, too. */
    attributes?: boolean;
    /** Begin with what is the case now; true unless given. */
    firstValues?: boolean;
    /** `id` of an event: begin behind it. */
    lastEventId?: string;
    /** Ends the stream, and throws its reason. */
    signal?: AbortSignal;
}

/** The gateway, for one key. */
export class Gateway {
    readonly alarms: AlarmsApi;
    readonly assets: AssetsApi;
    readonly attributes: AttributesApi;
    readonly devices: DevicesApi;
    readonly health: HealthApi;
    readonly keys: KeysApi;
    readonly relations: RelationsApi;
    readonly rpc: RpcApi;
    readonly telemetry: TelemetryApi;

    readonly #baseUrl: string;
    readonly #apiKey: string;
    readonly #timeoutSeconds: number;
    readonly #maxWaitSeconds: number;
    readonly #fetch: typeof fetch;

    /** @param baseUrl Where the gateway is, such as `https://gateway.example.com`. */
    constructor(baseUrl: string, apiKey: string, options: GatewayOptions = {}) {
        this.#baseUrl = baseUrl.replace(/\/+$/, '');
        this.#apiKey = apiKey;
        this.#timeoutSeconds = options.timeoutSeconds ?? 60;
        this.#maxWaitSeconds = options.maxWaitSeconds ?? 60;
        this.#fetch = options.fetch ?? fetch;
        const configuration = new Configuration({
            basePath: this.#baseUrl,
            apiKey,
            fetchApi: (url, init) => this.#send(url, init),
            // Errors stay what they are; otherwise each would be wrapped in a FetchError.
            middleware: [{ onError: async ({ error }) => Promise.reject(error) }],
        });
        this.alarms = new AlarmsApi(configuration);
        this.assets = new AssetsApi(configuration);
        this.attributes = new AttributesApi(configuration);
        this.devices = new DevicesApi(configuration);
        this.health = new HealthApi(configuration);
        this.keys = new KeysApi(configuration);
        this.relations = new RelationsApi(configuration);
        this.rpc = new RpcApi(configuration);
        this.telemetry = new TelemetryApi(configuration);
    }

    /**
     * Yield what happens to up to 100 devices until all are gone; a broken connection goes on where it broke.
     *
     * @param deviceIds UUIDs, or `name:` and exact names.
     * @throws GatewayError The gateway refused; once it has been open, a stream waits for what fails. A 404 may come
     * after a break when one of several devices is gone: `details.device_id`.
     */
    stream(deviceIds: string[], options: StreamOptions = {}): AsyncGenerator<GatewayEvent<LiveEventBody>, void, void> {
        const query = new URLSearchParams({
            device_ids: deviceIds.join(','),
            attributes: String(options.attributes ?? false),
            first_values: String(options.firstValues ?? true),
        });
        if (options.keys !== undefined) {
            query.set('keys', options.keys.join(','));
        }
        let left = deviceIds.length;
        const isLast = ({ type }: GatewayEvent<LiveEventBody>) => {
            left -= Number(type === 'gone');
            return left === 0;
        };
        return this.#listen(`/api/v1/tb/telemetry/stream?${query}`, isLast, options);
    }

    /** Yield the states of a stored command until the last one. */
    streamRpc(rpcId: string, signal?: AbortSignal): AsyncGenerator<GatewayEvent<RpcEvent>, void, void> {
        const path = `/api/v1/tb/rpc/${encodeURIComponent(rpcId)}/events`;
        const isLast = ({ type, data }: GatewayEvent<RpcEvent>) => {
            if (type === 'gone') {
                throw GatewayError.of(404, { error_code: 'RESOURCE_NOT_FOUND', message: 'The command was deleted.' });
            }
            return data.is_final;
        };
        return this.#listen(path, isLast, { signal });
    }

    async *#listen<Body>(
        path: string,
        isLast: (event: GatewayEvent<Body>) => boolean,
        options: { lastEventId?: string; signal?: AbortSignal | undefined },
    ): AsyncGenerator<GatewayEvent<Body>, void, void> {
        let { lastEventId, signal } = options;
        let pause = FIRST_PAUSE;
        let wasOpen = false;
        for (;;) {
            try {
                const opened = () => {
                    wasOpen = true;
                };
                for await (const { type, id, text } of this.#connect(path, lastEventId, signal, opened)) {
                    // An id alone marks a place of which there is nothing to tell.
                    lastEventId = id ?? lastEventId;
                    if (text === undefined) {
                        continue;
                    }
                    pause = FIRST_PAUSE;
                    if (type === 'error') {
                        const body = parseJson(text);
                        throw GatewayError.of(body.status, body);
                    }
                    // `closing` and `dropped` (this reader was too slow) end a connection, and the next one goes on;
                    // what a later gateway tells besides is not for this version.
                    if (!EVENTS.has(type)) {
                        continue;
                    }
                    const event = { type, id, data: parseJson(text) as Body };
                    yield event;
                    if (isLast(event)) {
                        return;
                    }
                }
            } catch (error) {
                signal?.throwIfAborted();
                // `fetch` throws a TypeError for whatever happens to a connection.
                const isBroken = error instanceof GatewayError ? error.status >= 500 : error instanceof TypeError;
                if (!isBroken || !wasOpen) {
                    throw error;
                }
            }
            await sleep(pause, signal);
            pause = Math.min(2 * pause, LONGEST_PAUSE);
        }
    }

    /** Yield the events of one connection, which ends with the loop over them. */
    async *#connect(
        path: string,
        lastEventId: string | undefined,
        signal: AbortSignal | undefined,
        opened: () => void,
    ): AsyncGenerator<{ type: string; id: string | undefined; text: string | undefined }, void, void> {
        const connection = new AbortController();
        const fallen = () => connection.abort(new TypeError('the stream fell silent'));
        let timer = setTimeout(fallen, SILENCE_SECONDS * 1000);
        const headers: Record<string, string> = { Accept: 'text/event-stream', 'X-API-Key': this.#apiKey };
        if (lastEventId !== undefined) {
            headers['Last-Event-ID'] = lastEventId;
        }
        try {
            const answer = await this.#send(this.#baseUrl + path, { headers, signal: either(connection.signal, signal) });
            opened();
            const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
            let rest = '';
            for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
                clearTimeout(timer);
                timer = setTimeout(fallen, SILENCE_SECONDS * 1000);
                const blocks = (rest + chunk.value).split('\n\n');
                rest = blocks.pop()!;
                for (const block of blocks) {
                    const fields = Object.fromEntries(block.split('\n').map((line) => split(line, ': ')));
                    yield { type: fields['event'] ?? 'message', id: fields['id'], text: fields['data'] };
                }
            }
        } finally {
            clearTimeout(timer);
            connection.abort();
        }
    }

    /** Return a good answer, or throw; what a rate limit refused, which has done nothing, is repeated. */
    async #send(url: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
        let left = this.#maxWaitSeconds;
        for (;;) {
            const answer = await this.#begin(url, init);
            if (answer.ok) {
                return answer;
            }
            const error = await GatewayError.from(answer);
            const wait = error.retryAfter;
            if (error.status !== TOO_MANY_REQUESTS || wait === undefined || wait > left) {
                throw error;
            }
            left -= wait;
            await sleep(wait, init.signal);
        }
    }

    /** Return an answer when it begins: a whole history may take its time. */
    async #begin(url: RequestInfo | URL, init: RequestInit): Promise<Response> {
        const patience = new AbortController();
        const late = new DOMException(`no answer within ${this.#timeoutSeconds} s`, 'TimeoutError');
        const timer = setTimeout(() => patience.abort(late), this.#timeoutSeconds * 1000);
        try {
            return await this.#fetch(url, { ...init, signal: either(patience.signal, init.signal) });
        } finally {
            clearTimeout(timer);
        }
    }
}

/**
 * Yield what is on all pages of a list: `iterate((page) => gateway.devices.list({ page, page_size: 500 }))`.
 *
 * What is created or deleted meanwhile may be missed or come twice.
 */
export async function* iterate<Item>(
    listPage: (page: number) => Promise<{ data: Item[]; pagination: Pagination }>,
): AsyncGenerator<Item, void, void> {
    for (let page = 0; ; page += 1) {
        const { data, pagination } = await listPage(page);
        yield* data;
        if (!pagination.has_next) {
            return;
        }
    }
}

function split(text: string, separator: string): [string, string] {
    const place = text.indexOf(separator);
    return place < 0 ? [text, ''] : [text.slice(0, place), text.slice(place + separator.length)];
}

function either(signal: AbortSignal, other: AbortSignal | null | undefined): AbortSignal {
    return other == null ? signal : AbortSignal.any([signal, other]);
}

/** Wait; throws the reason of the signal when it comes first. */
function sleep(seconds: number, signal?: AbortSignal | null): Promise<void> {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, seconds * 1000);
        const end = () => {
            clearTimeout(timer);
            reject(signal?.reason);
        };
        if (signal?.aborted) {
            end();
        }
        signal?.addEventListener('abort', end, { once: true });
    });
}
