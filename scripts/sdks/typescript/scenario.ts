/** The scenario of docs/sdks.md, in TypeScript. */

import { deepStrictEqual as check, ok } from 'node:assert/strict';

import { Gateway, GatewayError, iterate, type PointValue } from 'thingsboard-gateway-client';

const { GATEWAY_URL, API_KEY, LIMITED_API_KEY } = process.env as Record<string, string>;
const gateway = new Gateway(GATEWAY_URL!, API_KEY!);

const T0 = 1_767_225_600_000;
const ANSWERING = 'name:Demo Kitchen';
const OFFLINE = 'name:Demo Garage';
const name = `sdk-typescript-${Date.now()}`;
const device_id = `name:${name}`;
const missing_id = `name:${name}-missing`;
const values: Record<string, PointValue> = {
    integer: 25,
    decimal: 25.6,
    flag: true,
    word: 'true',
    text: 'größer ✓',
    digits: '12',
    large: 9007199254740993n,
    object: { mode: 'eco', limits: [18, 21.5], note: null },
};
const COUNT = 250;

async function refusal(call: () => Promise<unknown>): Promise<GatewayError> {
    try {
        await call();
    } catch (error) {
        ok(error instanceof GatewayError, String(error));
        return error;
    }
    throw new Error('the call should have been refused');
}

const steps: Record<string, () => Promise<void>> = {
    'list devices': async () => {
        const names: string[] = [];
        for await (const device of iterate((page) => gateway.devices.list({ page, page_size: 5 }))) {
            names.push(device.name);
        }
        check(names.length, (await gateway.devices.list()).pagination.total_elements);
        check(new Set(names).size, names.length);
        ok(names.includes('Demo Kitchen'));
    },
    upload: async () => {
        await gateway.devices.create({ body: { name, type: 'sdk' } });
        const body = Object.fromEntries(Object.entries(values).map(([key, value]) => [key, [{ ts: T0, value }]]));
        const answer = await gateway.telemetry.upload({ device_id, body });
        check(answer.total_data_points, Object.keys(values).length);
        check(answer.warnings.map((warning) => warning.key), ['digits']);
    },
    'read back': async () => {
        const keys = [...Object.keys(values), 'missing'].join();
        const { data } = await gateway.telemetry.getLatest({ device_id, keys });
        const points = Object.entries({ ...values, digits: 12 }).map(([key, value]) => [key, { ts: T0, value }]);
        check(data, { ...Object.fromEntries(points), missing: null });
    },
    history: async () => {
        const points = Array.from({ length: COUNT }, (_, number) => ({ ts: T0 + 1_000 * number, value: number }));
        await gateway.telemetry.upload({ device_id, body: { count: points } });
        const { data } = await gateway.telemetry.get({ device_id, keys: 'count', start_ts: T0 });
        check(data, { count: points });
    },
    export: async () => {
        const file = await gateway.telemetry.export({ device_id, keys: 'count', start_ts: T0, format: 'csv' });
        const lines = (await file.text()).split('\r\n');
        check(lines.slice(0, 2), ['ts,key,value', `${T0},count,0`]);
        check(lines.length, COUNT + 2);
    },
    bulk: async () => {
        const one = { bulk: [{ ts: T0, value: 1 }] };
        const answer = await gateway.telemetry.uploadBulk({ body: { [device_id]: one, [missing_id]: one } });
        check(answer.status, 'partial');
        check([answer.summary.successful_devices, answer.summary.failed_devices], [1, 1]);
        check(answer.results[device_id]?.status, 'success');
        check(answer.results[missing_id]?.error_code, 'RESOURCE_NOT_FOUND');
    },
    'not found': async () => {
        const error = await refusal(() => gateway.devices.get({ device_id: missing_id }));
        check([error.status, error.code], [404, 'RESOURCE_NOT_FOUND']);
        ok(error.message && error.requestId);
    },
    conflict: async () => {
        const error = await refusal(() => gateway.devices.create({ body: { name, type: 'sdk' } }));
        check([error.status, error.code], [409, 'CONFLICT']);
    },
    'rate limit': async () => {
        const hasty = new Gateway(GATEWAY_URL!, LIMITED_API_KEY!, { maxWaitSeconds: 0 });
        const error = await refusal(async () => {
            for (let call = 0; call < 3; call += 1) {
                await hasty.keys.getWhoami();
            }
        });
        check([error.status, error.code], [429, 'RATE_LIMIT_EXCEEDED']);
        check(error.details.limited_by, 'gateway');
        ok(error.retryAfter! >= 1);
        const patient = new Gateway(GATEWAY_URL!, LIMITED_API_KEY!);
        check((await patient.keys.getWhoami()).name, 'limited');
    },
    'command answered': async () => {
        const body = { method: 'setLight', params: { on: true } };
        const answer = await gateway.rpc.sendTwoway({ device_id: ANSWERING, body });
        check([answer.outcome, answer.response], ['answered', { on: true }]);
    },
    'device offline': async () => {
        const body = { method: 'setLight', params: { on: true }, fail_fast: true };
        const error = await refusal(() => gateway.rpc.sendTwoway({ device_id: OFFLINE, body }));
        check([error.status, error.code, error.details.outcome], [409, 'DEVICE_OFFLINE', 'offline']);
    },
    'live events': async () => {
        const events = gateway.stream([device_id], { keys: ['count'] });
        const next = async (from: typeof events) => {
            for (;;) {
                const { value: event } = await from.next();
                if (event?.type === 'telemetry') {
                    return event;
                }
            }
        };
        const first = await next(events);
        check([first.data.first, first.data.value], [true, COUNT - 1]);
        await gateway.telemetry.upload({ device_id, body: { count: [{ ts: T0 + 1_000_000, value: 'live' }] } });
        const live = await next(events);
        check([live.data.key, live.data.ts, live.data.value], ['count', T0 + 1_000_000, 'live']);
        await events.return();
        await gateway.telemetry.upload({ device_id, body: { count: [{ ts: T0 + 1_001_000, value: 'missed' }] } });
        const resumed = gateway.stream([device_id], { keys: ['count'], lastEventId: live.id! });
        check((await next(resumed)).data.value, 'missed');
        await resumed.return();
    },
};

try {
    for (const [step, run] of Object.entries(steps)) {
        try {
            await run();
        } catch (error) {
            console.log(`❌ ${step}`);
            throw error;
        }
        console.log(`✅ ${step}`);
    }
} finally {
    await gateway.devices.delete({ device_id });
}
