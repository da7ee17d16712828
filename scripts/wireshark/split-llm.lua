-- SPDX-License-Identifier: GPL-2.0-only
--
-- Wireshark's dissector of split-llm's messages (doc/wire.md): over TCP, and in captures of links that carry messages
-- whole (DLT_USER0).
--
--   wireshark -X lua_script:scripts/wireshark/split-llm.lua CAPTURE.pcap        (tshark likewise)
--
-- doc/wireshark.md says how captures are made and read.

local HEADER_BYTES = 36
local CRC_OFFSET = 32
local MAGIC = "SLLM"
local VERSION = 1
local PHANTOM, CODED = 1, 2
local LONGEST_PAYLOAD = 2 ^ 30 -- that a receiver on TCP accepts
local PORTS = "9000-9001" -- inference, and CE-CoLLM's uploads
local RECORD_BYTES = 8 -- in front of a message in a capture of whole messages

local KINDS = {
    [1] = "tokens",
    [2] = "next-token",
    [3] = "embedding",
    [4] = "layer-input",
    [5] = "deltas",
    [6] = "final-state",
    [7] = "end",
    [8] = "skip",
    [9] = "hidden-state",
    [10] = "kv-cache",
    [11] = "request",
    [12] = "context-lost",
    [13] = "generate",
    [14] = "side-states",
    [15] = "side-output",
    [16] = "adapter-input",
    [17] = "adapter-output",
    [18] = "answer",
    [19] = "candidates",
}

local DTYPES = {
    [1] = "fp32",
    [2] = "fp16",
    [3] = "bf16",
    [4] = "int32",
    [5] = "int8",
}

local DIRECTIONS = {
    [0] = "up",
    [1] = "down",
}

-- kinds that begin with token ids: how many ids there are, nil for all of the payload
local TOKEN_IDS = {
    ["tokens"] = math.huge,
    ["next-token"] = 1, -- behind it may be those of other hypotheses, or a deadline
    ["answer"] = math.huge,
}

-- Lua 5.2 and LuaJIT have a library for this, Lua 5.3 and later have operators, which the others cannot read.
local bit = bit32 or load("return {band = function(a, b) return a & b end, bxor = function(a, b) return a ~ b end, "
    .. "rshift = function(a, n) return a >> n end}")()

-- CRC-32C

local crc_table = {}
for byte = 0, 255 do
    local crc = byte
    for _ = 1, 8 do
        local odd = crc % 2 == 1
        crc = bit.rshift(crc, 1)
        crc = odd and bit.bxor(crc, 0x82F63B78) or crc
    end
    crc_table[byte] = crc
end

local function crc32c(bytes)
    local band, bxor, rshift = bit.band, bit.bxor, bit.rshift
    local crc = 0xFFFFFFFF
    for begin = 1, #bytes, 4096 do
        for _, byte in ipairs({ bytes:byte(begin, math.min(begin + 4095, #bytes)) }) do
            crc = bxor(rshift(crc, 8), crc_table[band(bxor(crc, byte), 0xFF)])
        end
    end
    return bxor(crc, 0xFFFFFFFF)
end

-- Messages

local message = Proto("splitllm", "split-llm message")
message.prefs.check_crc = Pref.bool("Check checksums", true, "Whether the CRC-32C of every message is computed")

local f = {
    magic = ProtoField.string("splitllm.magic", "Magic"),
    version = ProtoField.uint8("splitllm.version", "Version"),
    kind = ProtoField.uint8("splitllm.kind", "Kind", base.DEC, KINDS),
    dtype = ProtoField.uint8("splitllm.dtype", "Element type", base.DEC, DTYPES),
    flags = ProtoField.uint8("splitllm.flags", "Flags", base.HEX),
    phantom = ProtoField.bool("splitllm.flags.phantom", "Phantom payload", 8, nil, PHANTOM),
    coded = ProtoField.bool("splitllm.flags.coded", "Made by a compressing codec", 8, nil, CODED),
    reserved = ProtoField.uint8("splitllm.flags.reserved", "Reserved", base.HEX, nil, 255 - PHANTOM - CODED),
    session = ProtoField.uint32("splitllm.session", "Session"),
    request = ProtoField.uint32("splitllm.request", "Request"),
    sequence = ProtoField.uint32("splitllm.sequence", "Sequence number"),
    position = ProtoField.uint32("splitllm.position", "Position"),
    layer = ProtoField.uint16("splitllm.layer", "Layer"),
    front = ProtoField.uint16("splitllm.front", "Real bytes of a phantom payload"),
    length = ProtoField.uint32("splitllm.length", "Payload bytes"),
    crc = ProtoField.uint32("splitllm.crc", "CRC-32C", base.HEX),
    crc_status = ProtoField.string("splitllm.crc.status", "CRC-32C status"),
    payload = ProtoField.bytes("splitllm.payload", "Payload"),
    payload_phantom = ProtoField.bytes("splitllm.payload.phantom", "Phantom bytes"),
    token = ProtoField.int32("splitllm.token", "Token id"),
    container = ProtoField.none("splitllm.container", "Container"),
    container_version = ProtoField.uint8("splitllm.container.version", "Version"),
    container_above = ProtoField.bool("splitllm.container.above", "Some elements travel exactly", 8, nil, 1),
    container_exact = ProtoField.uint8("splitllm.container.exact", "Their type", base.DEC, DTYPES),
    container_bits = ProtoField.uint8("splitllm.container.bits", "Bits of a code at most"),
    container_rows = ProtoField.uint32("splitllm.container.rows", "Rows"),
    container_cols = ProtoField.uint32("splitllm.container.cols", "Columns"),
    container_table = ProtoField.uint16("splitllm.container.table", "Bytes of the message's table"),
}
message.fields = f

local group, severity = expert.group, expert.severity
local e = {
    no_message = ProtoExpert.new("splitllm.no_message", "No message starts here: what is before it is missing or late; "
        .. "where packets were lost, set TCP's preference reassemble_out_of_order", group.UNDECODED, severity.WARN),
    bad_version = ProtoExpert.new("splitllm.bad_version", "Unknown version", group.PROTOCOL, severity.ERROR),
    bad_kind = ProtoExpert.new("splitllm.bad_kind", "Unknown kind", group.PROTOCOL, severity.ERROR),
    bad_dtype = ProtoExpert.new("splitllm.bad_dtype", "Unknown element type", group.PROTOCOL, severity.ERROR),
    bad_flags = ProtoExpert.new("splitllm.bad_flags", "Reserved flags are set", group.PROTOCOL, severity.ERROR),
    bad_front = ProtoExpert.new("splitllm.bad_front", "More real bytes than a payload of this kind and length has",
        group.PROTOCOL, severity.ERROR),
    bad_length = ProtoExpert.new("splitllm.bad_length", "Longer than a receiver accepts", group.PROTOCOL,
        severity.ERROR),
    bad_crc = ProtoExpert.new("splitllm.bad_crc", "Wrong checksum", group.CHECKSUM, severity.ERROR),
}
message.experts = e

-- The first bytes of a container (doc/codec.md).
local CONTAINER_BYTES = 20
local CONTAINER_START = "TABQ\1"

-- The heads of the containers in a payload. A selection may stand before them, and norms behind.
local function dissect_containers(tvb, payload, offset, tree)
    local at = payload:find(CONTAINER_START, 1, true)
    while at and at + CONTAINER_BYTES - 1 <= #payload do
        local head = tvb(offset + at - 1, CONTAINER_BYTES)
        local item = tree:add(f.container, head)
        item:append_text((": %d x %d, %d bits"):format(head(8, 4):le_uint(), head(12, 4):le_uint(), head(7, 1):uint()))
        item:add(f.container_version, head(4, 1))
        item:add(f.container_above, head(5, 1))
        item:add(f.container_exact, head(6, 1))
        item:add(f.container_bits, head(7, 1))
        item:add_le(f.container_rows, head(8, 4))
        item:add_le(f.container_cols, head(12, 4))
        item:add_le(f.container_table, head(16, 2))
        at = payload:find(CONTAINER_START, at + CONTAINER_BYTES, true)
    end
end

local function dissect_tokens(tvb, count, offset, bytes, tree)
    for i = 0, math.min(count, math.floor(bytes / 4)) - 1 do
        tree:add_le(f.token, tvb(offset + 4 * i, 4))
    end
end

-- What the header says of a message, and whether that can be believed.
local function read_header(tvb)
    local header = {
        version = tvb(4, 1):uint(),
        kind = tvb(5, 1):uint(),
        dtype = tvb(6, 1):uint(),
        flags = tvb(7, 1):uint(),
        request = tvb(12, 4):le_uint(),
        position = tvb(20, 4):le_uint(),
        layer = tvb(24, 2):le_uint(),
        front = tvb(26, 2):le_uint(),
        length = tvb(28, 4):le_uint(),
    }
    header.phantom = bit.band(header.flags, PHANTOM) ~= 0
    header.coded = bit.band(header.flags, CODED) ~= 0
    header.real = header.phantom and header.front or header.length -- bytes of the payload that say something
    header.name = KINDS[header.kind] or ("kind " .. header.kind)
    return header
end

local function summary(header)
    local text = ("%s request %d position %d"):format(header.name, header.request, header.position)
    if header.layer > 0 then
        text = text .. (" layer %d"):format(header.layer)
    end
    return text .. (", %d B%s"):format(header.length, header.phantom and " (phantom)" or "")
end

local function add_header(tvb, header, tree)
    tree:add(f.magic, tvb(0, 4))
    local version = tree:add(f.version, tvb(4, 1))
    local kind = tree:add(f.kind, tvb(5, 1))
    local dtype = tree:add(f.dtype, tvb(6, 1))
    local flags = tree:add(f.flags, tvb(7, 1))
    flags:add(f.phantom, tvb(7, 1))
    flags:add(f.coded, tvb(7, 1))
    flags:add(f.reserved, tvb(7, 1))
    tree:add_le(f.session, tvb(8, 4))
    tree:add_le(f.request, tvb(12, 4))
    tree:add_le(f.sequence, tvb(16, 4))
    tree:add_le(f.position, tvb(20, 4))
    tree:add_le(f.layer, tvb(24, 2))
    local front = tree:add_le(f.front, tvb(26, 2))
    local length = tree:add_le(f.length, tvb(28, 4))
    if header.version ~= VERSION then
        version:add_proto_expert_info(e.bad_version)
    end
    if not KINDS[header.kind] then
        kind:add_proto_expert_info(e.bad_kind)
    end
    if not DTYPES[header.dtype] then
        dtype:add_proto_expert_info(e.bad_dtype)
    end
    if header.flags > PHANTOM + CODED then
        flags:add_proto_expert_info(e.bad_flags)
    end
    if header.front > header.length or (header.front > 0 and not header.phantom) then
        front:add_proto_expert_info(e.bad_front)
    end
    if header.length > LONGEST_PAYLOAD then
        length:add_proto_expert_info(e.bad_length)
    end
end

-- The real bytes of the payload as they are in the capture, which may have cut them off.
local function payload_of(tvb, header)
    local bytes = math.min(header.real, tvb:len() - HEADER_BYTES)
    return bytes > 0 and tvb:raw(HEADER_BYTES, bytes) or ""
end

local function add_crc(tvb, header, payload, tree)
    local crc = tree:add_le(f.crc, tvb(CRC_OFFSET, 4))
    local status = "unverified"
    if message.prefs.check_crc and #payload == header.real then
        local good = crc32c(tvb:raw(0, CRC_OFFSET) .. payload) == tvb(CRC_OFFSET, 4):le_uint()
        status = good and "good" or "bad"
        if not good then
            crc:add_proto_expert_info(e.bad_crc)
        end
    end
    tree:add(f.crc_status, status):set_generated()
end

-- A message, which begins with tvb and ends with it unless the capture has cut it off.
local function dissect_message(tvb, pinfo, root)
    local header = read_header(tvb)
    local tree = root:add(message, tvb(), "split-llm " .. summary(header))
    add_header(tvb, header, tree)
    local payload = payload_of(tvb, header)
    add_crc(tvb, header, payload, tree)
    if #payload > 0 then
        local item = tree:add(f.payload, tvb(HEADER_BYTES, #payload))
        if TOKEN_IDS[header.name] and not header.phantom then
            dissect_tokens(tvb, TOKEN_IDS[header.name], HEADER_BYTES, #payload, item)
        end
        if header.coded then
            dissect_containers(tvb, payload, HEADER_BYTES, item)
        end
    end
    local rest = tvb:len() - HEADER_BYTES - #payload
    if header.phantom and rest > 0 then
        tree:add(f.payload_phantom, tvb(HEADER_BYTES + #payload, rest))
    end

    local separator = tostring(pinfo.cols.info) == "" and "" or "; "
    pinfo.cols.info:append(separator .. summary(header))
    return tvb:len()
end

local function begins_message(tvb, offset)
    local bytes = math.min(tvb:len() - offset, #MAGIC)
    return tvb:raw(offset, bytes) == MAGIC:sub(1, bytes)
end

-- Bytes from offset to the end of the message that begins there; all there are where none does.
local function message_bytes(tvb, _, offset)
    local length = tvb(offset + 28, 4):le_uint()
    if not begins_message(tvb, offset) or length > LONGEST_PAYLOAD then
        return tvb:len() - offset
    end
    return HEADER_BYTES + length
end

local function dissect_pdu(tvb, pinfo, tree)
    if begins_message(tvb, 0) then
        return dissect_message(tvb, pinfo, tree)
    end
    tree:add(message, tvb()):add_proto_expert_info(e.no_message)
    return tvb:len()
end

function message.dissector(tvb, pinfo, tree)
    pinfo.cols.protocol = "split-llm"
    pinfo.cols.info:clear()
    if not begins_message(tvb, 0) then
        pinfo.cols.info:append("not the beginning of a message")
        return dissect_pdu(tvb, pinfo, tree)
    end
    dissect_tcp_pdus(tvb, tree, HEADER_BYTES, message_bytes, dissect_pdu)
    return tvb:len()
end

DissectorTable.get("tcp.port"):add(PORTS, message)

-- Records of links that carry messages whole

local record = Proto("splitllm_record", "split-llm record of a whole message")
local r = {
    direction = ProtoField.uint8("splitllm_record.direction", "Direction", base.DEC, DIRECTIONS),
    connection = ProtoField.uint32("splitllm_record.connection", "Connection of the user"),
}
record.fields = r

function record.dissector(tvb, pinfo, tree)
    if tvb:len() < RECORD_BYTES + HEADER_BYTES then
        return 0
    end
    local direction = tvb(0, 1):uint()
    local branch = tree:add(record, tvb(0, RECORD_BYTES))
    branch:add(r.direction, tvb(0, 1))
    branch:add_le(r.connection, tvb(4, 4))
    local user = "user " .. tvb(RECORD_BYTES + 8, 4):le_uint()
    pinfo.cols.src = direction == 0 and user or "server"
    pinfo.cols.dst = direction == 0 and "server" or user
    pinfo.cols.protocol = "split-llm"
    pinfo.cols.info:clear()
    return RECORD_BYTES + dissect_pdu(tvb(RECORD_BYTES):tvb(), pinfo, tree)
end

DissectorTable.get("wtap_encap"):add(wtap_encaps.USER0, record)
