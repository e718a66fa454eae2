/* Every byte that two sides of FerroTOE share. Generated from nic-fw/abi (what each field means is said there):
 * don't edit, run `cargo run -p toe-nfp-header -- --write`.
 *
 * Words are in native byte order, addresses in network order. What the other side writes is a claim: copy it out
 * once, then validate the copy.
 *
 * A compiler without <stdint.h> or the aligned attribute defines TOE_NO_STDINT or TOE_ALIGNED(n) first.
 */
#ifndef FERROTOE_ABI_H
#define FERROTOE_ABI_H

#ifndef TOE_NO_STDINT
#include <stdint.h>
#endif

#ifndef TOE_ALIGNED
#define TOE_ALIGNED(n) __attribute__((aligned(n)))
#endif

/* toe_abi */
#define TOE_ABI_VERSION 0x10007U

/* desc */
#define TOE_DESC_LEN 64U
#define TOE_DESC_MIN_ENTRIES 2U

/* desc::hc */
#define TOE_HC_UPDATE 1U
#define TOE_HC_REBIND 2U
#define TOE_HC_ABORT 3U
#define TOE_HC_OPTIONS 4U
#define TOE_HC_CLOSE 5U

/* desc::hc_flags */
#define TOE_HC_FLAG_FIN 1U
#define TOE_HC_FLAG_NODELAY 2U
#define TOE_HC_FLAG_CORK 4U
#define TOE_HC_FLAG_KEEPALIVE 8U
#define TOE_HC_FLAG_RX_CLOSED 16U
#define TOE_HC_FLAG_URGENT 128U

/* desc::ev */
#define TOE_EV_FLOW 1U

/* desc::ev_flags */
#define TOE_EV_FLAG_RX_FIN 1U
#define TOE_EV_FLAG_TX_FIN_ACKED 2U
#define TOE_EV_FLAG_ERROR 4U
#define TOE_EV_FLAG_CLOSED 8U
#define TOE_EV_FLAG_URGENT 16U

/* context */
#define TOE_CONTEXT_PAGE_LEN 4096U

/* flow */
#define TOE_FLOW_STATE_LEN 256U

/* flow::tcp_state */
#define TOE_TCP_STATE_CLOSED 0U
#define TOE_TCP_STATE_ESTABLISHED 1U
#define TOE_TCP_STATE_FIN_WAIT_1 2U
#define TOE_TCP_STATE_FIN_WAIT_2 3U
#define TOE_TCP_STATE_CLOSE_WAIT 4U
#define TOE_TCP_STATE_CLOSING 5U
#define TOE_TCP_STATE_LAST_ACK 6U
#define TOE_TCP_STATE_TIME_WAIT 7U

/* flow::timer */
#define TOE_TIMER_NONE 0U
#define TOE_TIMER_RTO 1U
#define TOE_TIMER_PERSIST 2U
#define TOE_TIMER_KEEPALIVE 3U
#define TOE_TIMER_CORK 4U
#define TOE_TIMER_REORDER 5U
#define TOE_TIMER_TLP 6U

/* flow::cc */
#define TOE_CC_NEWRENO 0U
#define TOE_CC_CUBIC 1U
#define TOE_CC_DCTCP 2U
#define TOE_CC_DCTCP_RATE 3U
#define TOE_CC_TIMELY 4U
#define TOE_CC_CONST_RATE 5U
#define TOE_CC_COUNT 6U

/* flow::quick_ack */
#define TOE_QUICK_ACK_AS_IT_IS 0U
#define TOE_QUICK_ACK_ON 1U
#define TOE_QUICK_ACK_OFF 2U

/* flow::rate_words */
#define TOE_RATE_WORD_MARKED 0U

/* flow::flow_flags */
#define TOE_FLOW_FLAG_TIMESTAMPS 1U
#define TOE_FLOW_FLAG_ECN 2U
#define TOE_FLOW_FLAG_SACK 4U
#define TOE_FLOW_FLAG_TX_FIN 8U
#define TOE_FLOW_FLAG_FIN_SEEN 16U
#define TOE_FLOW_FLAG_NODELAY 32U
#define TOE_FLOW_FLAG_CORK 64U
#define TOE_FLOW_FLAG_KEEPALIVE 128U
#define TOE_FLOW_FLAG_RX_CLOSED 256U
#define TOE_FLOW_FLAG_ECE 512U
#define TOE_FLOW_FLAG_CWR 1024U
#define TOE_FLOW_FLAG_RECOVERY 2048U
#define TOE_FLOW_FLAG_LOSS 4096U
#define TOE_FLOW_FLAG_DELACK_ARMED 8192U
#define TOE_FLOW_FLAG_RTT_PENDING 16384U
#define TOE_FLOW_FLAG_FIN_SENT 32768U
#define TOE_FLOW_FLAG_FIN_ACKED 0x10000U
#define TOE_FLOW_FLAG_ACK_NOW 0x20000U
#define TOE_FLOW_FLAG_ORPHAN 0x40000U
#define TOE_FLOW_FLAG_REXMIT_ONE 0x80000U
#define TOE_FLOW_FLAG_PROBE 0x100000U
#define TOE_FLOW_FLAG_ECN_REDUCED 0x200000U
#define TOE_FLOW_FLAG_PUSH 0x400000U
#define TOE_FLOW_FLAG_RST_DUE 0x800000U
#define TOE_FLOW_FLAG_TLP_DUE 0x1000000U
#define TOE_FLOW_FLAG_REORDERED 0x2000000U
#define TOE_FLOW_FLAG_PROBED 0x4000000U
#define TOE_FLOW_FLAG_BACKED_OFF 0x8000000U
#define TOE_FLOW_FLAG_URGENT 0x10000000U
#define TOE_FLOW_FLAG_PACED 0x40000000U
#define TOE_FLOW_FLAG_RATED 0x80000000U

/* control */
#define TOE_CONTROL_MSG_LEN 512U
#define TOE_CONTROL_ENTRIES 256U
#define TOE_FRAME_RING_LEN 0x100000U
#define TOE_CONTROL_REGION_LEN 0x241100U
#define TOE_CONTROL_SUBMISSIONS_OFF 4096U
#define TOE_CONTROL_COMPLETIONS_OFF 0x21000U
#define TOE_CONTROL_EXCEPTIONS_OFF 0x41000U
#define TOE_CONTROL_PACKETS_OFF 0x141080U
#define TOE_CONTROL_COUNTERS_PER_MSG 54U
#define TOE_CONTROL_RATE_ORDERS_PER_MSG 27U
#define TOE_CONTROL_RATE_REPORTS_PER_MSG 11U

/* control::kind */
#define TOE_CONTROL_KIND_REPLY 0x80000000U
#define TOE_CONTROL_KIND_MAP_REGION 1U
#define TOE_CONTROL_KIND_UNMAP_REGION 2U
#define TOE_CONTROL_KIND_OPEN_CONTEXT 3U
#define TOE_CONTROL_KIND_CLOSE_CONTEXT 4U
#define TOE_CONTROL_KIND_INSTALL 5U
#define TOE_CONTROL_KIND_RELEASE 6U
#define TOE_CONTROL_KIND_FREEZE 7U
#define TOE_CONTROL_KIND_ABORT 8U
#define TOE_CONTROL_KIND_CLOSE 9U
#define TOE_CONTROL_KIND_QUERY 10U
#define TOE_CONTROL_KIND_NEXT_FLOW 11U
#define TOE_CONTROL_KIND_SET_RATE 12U
#define TOE_CONTROL_KIND_REBIND 13U
#define TOE_CONTROL_KIND_ICMP_ERROR 14U
#define TOE_CONTROL_KIND_NEXT_HOP 15U
#define TOE_CONTROL_KIND_ADDRESS 16U
#define TOE_CONTROL_KIND_COUNTERS 17U
#define TOE_CONTROL_KIND_SET_BUFFERS 18U
#define TOE_CONTROL_KIND_STAGES 19U
#define TOE_CONTROL_KIND_TRACE 20U
#define TOE_CONTROL_KIND_SET_SHARE 21U
#define TOE_CONTROL_KIND_SET_CC 22U
#define TOE_CONTROL_KIND_RATES 23U
#define TOE_CONTROL_KIND_FLOW_CLOSED 64U

/* control::status */
#define TOE_CONTROL_STATUS_OK 0U
#define TOE_CONTROL_STATUS_INVALID 1U
#define TOE_CONTROL_STATUS_NOT_FOUND 2U
#define TOE_CONTROL_STATUS_EXISTS 3U
#define TOE_CONTROL_STATUS_NO_SPACE 4U
#define TOE_CONTROL_STATUS_UNSUPPORTED 5U

/* control::close_reason */
#define TOE_CLOSE_REASON_DONE 0U
#define TOE_CLOSE_REASON_TIME_WAIT 1U
#define TOE_CLOSE_REASON_RESET 2U
#define TOE_CLOSE_REASON_TIMEOUT 3U
#define TOE_CLOSE_REASON_ABORTED 4U
#define TOE_CLOSE_REASON_REGION_GONE 5U

/* observe */
#define TOE_STAGES_PER_MSG 7U
#define TOE_TRACES_PER_MSG 9U
#define TOE_NO_CPU 0xffffffffU

/* observe::stage */
#define TOE_STAGE_INGRESS 0U
#define TOE_STAGE_PRE 1U
#define TOE_STAGE_PROTOCOL 2U
#define TOE_STAGE_POST 3U
#define TOE_STAGE_DMA 4U
#define TOE_STAGE_EGRESS 5U
#define TOE_STAGE_CTXQ 6U
#define TOE_STAGE_COUNT 7U
#define TOE_STAGE_FUSED 7U

/* observe::stage_flags */
#define TOE_STAGE_FLAG_ASLEEP 1U

/* observe::trace_kind */
#define TOE_TRACE_KIND_RX 0U
#define TOE_TRACE_KIND_RX_OUT 1U
#define TOE_TRACE_KIND_HC_OUT 2U
#define TOE_TRACE_KIND_TX_OUT 3U
#define TOE_TRACE_KIND_OUT 4U
#define TOE_TRACE_KIND_HC 5U
#define TOE_TRACE_KIND_EVENT 6U
#define TOE_TRACE_KIND_HC_DONE 7U

/* observe::trace_op */
#define TOE_TRACE_OP_STOP 0U
#define TOE_TRACE_OP_START 1U
#define TOE_TRACE_OP_READ 2U

/* frames */
#define TOE_FRAME_MAX 0x10040U
#define TOE_FRAME_RING_HEADER_LEN 128U
#define TOE_FRAME_UNIT 64U
#define TOE_FRAME_RECORD_LEN 64U

/* frames::kind */
#define TOE_FRAME_KIND_SKIP 0U
#define TOE_FRAME_KIND_EXCEPTION 1U
#define TOE_FRAME_KIND_TRANSMIT 2U
#define TOE_FRAME_KIND_INJECT 3U

/* frames::flags */
#define TOE_FRAME_FLAG_CSUM_OK 1U
#define TOE_FRAME_FLAG_NEEDS_CSUM 2U

/* region */
#define TOE_REGION_MAGIC 0x4e474552454f5446ULL
#define TOE_SOCKET_SLOT_LEN 448U
#define TOE_ACCEPT_RECORD_LEN 128U

/* region::slot_state */
#define TOE_SLOT_STATE_FREE 0U
#define TOE_SLOT_STATE_OPEN 1U
#define TOE_SLOT_STATE_LISTENING 2U
#define TOE_SLOT_STATE_CONNECTING 3U
#define TOE_SLOT_STATE_CONNECTED 4U
#define TOE_SLOT_STATE_FAILED 5U

/* region::urgent_state */
#define TOE_URGENT_STATE_NONE 0U
#define TOE_URGENT_STATE_UNREAD 1U
#define TOE_URGENT_STATE_READ 2U

/* region::slot_flags */
#define TOE_SLOT_FLAG_CLEAN 1U

/* regs */
#define TOE_PCI_VENDOR 63239U
#define TOE_PCI_DEVICE 1U
#define TOE_BAR0_LEN 4096U
#define TOE_REG_MAGIC 0U
#define TOE_REG_MAGIC_VALUE 0x454f5446U
#define TOE_REG_VERSION 4U
#define TOE_REG_CAPS 8U
#define TOE_REG_STATUS 12U
#define TOE_REG_MAX_FLOWS 16U
#define TOE_REG_MAX_CONTEXTS 20U
#define TOE_REG_MAX_REGIONS 24U
#define TOE_REG_MTU 28U
#define TOE_REG_MAC_LO 32U
#define TOE_REG_MAC_HI 36U
#define TOE_REG_CONTROL_LO 40U
#define TOE_REG_CONTROL_HI 44U
#define TOE_REG_ENABLE 48U
#define TOE_REG_MAX_NEXT_HOPS 52U
#define TOE_REG_LINK 56U

/* regs::enable */
#define TOE_ENABLE_DETACH 0U
#define TOE_ENABLE_ATTACH 1U
#define TOE_ENABLE_RESET 2U

/* regs::status */
#define TOE_STATUS_DETACHED 0U
#define TOE_STATUS_ATTACHED 1U
#define TOE_STATUS_FAILED 2U

/* regs::link */
#define TOE_LINK_UNKNOWN 0U
#define TOE_LINK_UP 1U
#define TOE_LINK_DOWN 2U

/* regs::caps */
#define TOE_CAP_TIMERS 1U
#define TOE_CAP_TSO 2U
#define TOE_CAP_SACK 4U
#define TOE_CAP_RACK 8U
#define TOE_CAP_IPV6 16U

/* regs::irq */
#define TOE_IRQ_MSIX 2U
#define TOE_IRQ_KICK 5U
#define TOE_IRQ_COUNT 6U

/* window */
#define TOE_WINDOW_MIN 0x400000U
#define TOE_WINDOW_MAX 0x400000000ULL
#define TOE_WINDOW_DEFAULT 0x4000000U
#define TOE_WINDOW_VECTORS_MAX 256U
#define TOE_WINDOW_CONTROL_VECTOR 0U
#define TOE_WINDOW_CARD_PAGE_OFF 0U
#define TOE_WINDOW_HOST_PAGE_OFF 4096U
#define TOE_WINDOW_LOG_HEADER_OFF 8192U
#define TOE_WINDOW_LOG_OFF 12288U
#define TOE_WINDOW_MEMORY_OFF 0x20000U
#define TOE_WINDOW_LOG_LEN 0x10000U
#define TOE_WINDOW_FAILURE_MAX 512U
#define TOE_WINDOW_BUILD_WORDS 5U

/* window::outcome */
#define TOE_WINDOW_OUTCOME_NONE 0U
#define TOE_WINDOW_OUTCOME_OK 1U
#define TOE_WINDOW_OUTCOME_INVALID 2U
#define TOE_WINDOW_OUTCOME_FAILED 3U
#define TOE_WINDOW_OUTCOME_MISMATCH 4U

/* window::stage */
#define TOE_WINDOW_STAGE_NONE 0U
#define TOE_WINDOW_STAGE_BOOT 1U
#define TOE_WINDOW_STAGE_DEVICES 2U
#define TOE_WINDOW_STAGE_READY 3U
#define TOE_WINDOW_STAGE_REQUEST 4U
#define TOE_WINDOW_STAGE_RUNNING 5U

/* app */
#define TOE_APP_MAGIC 0x53505041454f5446ULL
#define TOE_APP_MSG_LEN 128U
#define TOE_APP_POOL_MAX 32U

/* app::op */
#define TOE_APP_OP_HELLO 1U
#define TOE_APP_OP_OPEN_CONTEXT 2U
#define TOE_APP_OP_POOL 3U
#define TOE_APP_OP_BIND 4U
#define TOE_APP_OP_LISTEN 5U
#define TOE_APP_OP_CONNECT 6U
#define TOE_APP_OP_SUBSCRIBE 7U
#define TOE_APP_OP_UNLISTEN 8U
#define TOE_APP_OP_CLOSE_CONTEXT 9U
#define TOE_APP_OP_BYE 10U
#define TOE_APP_OP_IDENTIFY 11U
#define TOE_APP_OP_RATE 12U
#define TOE_APP_OP_CONGESTION 13U
#define TOE_APP_OP_INFO 14U
#define TOE_APP_OP_WHOSE 15U

/* app::whose */
#define TOE_APP_WHOSE_OTHERS 0U
#define TOE_APP_WHOSE_OWN 1U
#define TOE_APP_WHOSE_ON_LINK 2U

/* app::bind_flags */
#define TOE_APP_BIND_REUSEADDR 1U
#define TOE_APP_BIND_REUSEPORT 2U
#define TOE_APP_BIND_V6ONLY 4U
#define TOE_APP_BIND_NO_PORT 8U

/* counters */
#define TOE_COUNTERS_TOTAL 77U

/* ids */
#define TOE_FLOW_INDEX_NONE 0xffffffffU
#define TOE_CTX_NONE 65535U
#define TOE_REGION_NONE 65535U

/* counters: numbers of the whole set, as answers to COUNTERS have them */
#define TOE_COUNTER_RX_FRAMES 0U
#define TOE_COUNTER_RX_BYTES 1U
#define TOE_COUNTER_RX_INJECTED 2U
#define TOE_COUNTER_RX_DELIVERED 3U
#define TOE_COUNTER_RX_EXCEPTIONS 4U
#define TOE_COUNTER_RX_ANSWERED 5U
#define TOE_COUNTER_RX_PAYLOAD_BYTES 6U
#define TOE_COUNTER_RX_OUT_OF_ORDER 7U
#define TOE_COUNTER_TX_FRAMES 8U
#define TOE_COUNTER_TX_BYTES 9U
#define TOE_COUNTER_TX_PAYLOAD_BYTES 10U
#define TOE_COUNTER_TX_ACKS 11U
#define TOE_COUNTER_TX_FAST_RETRANSMITS 12U
#define TOE_COUNTER_TX_RACK_LOSSES 13U
#define TOE_COUNTER_TX_TAIL_PROBES 14U
#define TOE_COUNTER_TX_TAIL_REPAIRS 15U
#define TOE_COUNTER_TX_SPURIOUS_RECOVERIES 16U
#define TOE_COUNTER_TX_SPURIOUS_TIMEOUTS 17U
#define TOE_COUNTER_RX_DSACKS 18U
#define TOE_COUNTER_RX_URGENT 19U
#define TOE_COUNTER_RX_RENEGED 20U
#define TOE_COUNTER_RECORDS_REFUSED 21U
#define TOE_COUNTER_TX_TIMEOUTS 22U
#define TOE_COUNTER_TX_PROBES 23U
#define TOE_COUNTER_TX_RESETS 24U
#define TOE_COUNTER_TX_CONTROL_FRAMES 25U
#define TOE_COUNTER_TX_PORT_BUSY 26U
#define TOE_COUNTER_TX_NO_NEXT_HOP 27U
#define TOE_COUNTER_HC_DESCRIPTORS 28U
#define TOE_COUNTER_HC_BAD_KIND 29U
#define TOE_COUNTER_HC_BAD_FLOW 30U
#define TOE_COUNTER_HC_FOREIGN_FLOW 31U
#define TOE_COUNTER_HC_BAD_POSITION 32U
#define TOE_COUNTER_EVENTS 33U
#define TOE_COUNTER_EVENT_QUEUE_FULL 34U
#define TOE_COUNTER_CONTEXTS_FAILED 35U
#define TOE_COUNTER_INTERRUPTS 36U
#define TOE_COUNTER_KICKS 37U
#define TOE_COUNTER_CONTROL_MESSAGES 38U
#define TOE_COUNTER_CONTROL_REFUSED 39U
#define TOE_COUNTER_FLOWS_INSTALLED 40U
#define TOE_COUNTER_FLOWS_CLOSED 41U
#define TOE_COUNTER_DMA_FAULTS 42U
#define TOE_COUNTER_SLEEPS 43U
#define TOE_COUNTER_RX_PORT_OVERRUN 44U
#define TOE_COUNTER_RX_PORT_UNUSABLE 45U
#define TOE_COUNTER_TX_PORT_LOST 46U
#define TOE_COUNTER_PORT_RESETS 47U
#define TOE_COUNTER_DROP_TRUNCATED 48U
#define TOE_COUNTER_DROP_OTHER_MAC 49U
#define TOE_COUNTER_DROP_GROUP 50U
#define TOE_COUNTER_DROP_BAD_IP_HEADER 51U
#define TOE_COUNTER_DROP_BAD_IP_CHECKSUM 52U
#define TOE_COUNTER_DROP_BAD_TCP_HEADER 53U
#define TOE_COUNTER_DROP_BAD_TCP_CHECKSUM 54U
#define TOE_COUNTER_DROP_BAD_TCP_OPTIONS 55U
#define TOE_COUNTER_DROP_EXCEPTION_RING_FULL 56U
#define TOE_COUNTER_DROP_NO_CONTROL_PLANE 57U
#define TOE_COUNTER_DROP_OUT_OF_WINDOW 58U
#define TOE_COUNTER_DROP_DUPLICATE 59U
#define TOE_COUNTER_DROP_PAWS 60U
#define TOE_COUNTER_DROP_BAD_ACK 61U
#define TOE_COUNTER_DROP_NO_ACK 62U
#define TOE_COUNTER_DROP_RST_CHALLENGED 63U
#define TOE_COUNTER_DROP_SYN_CHALLENGED 64U
#define TOE_COUNTER_DROP_NO_INTERVAL 65U
#define TOE_COUNTER_DROP_RX_CLOSED 66U
#define TOE_COUNTER_DROP_FROZEN 67U
#define TOE_COUNTER_DROP_NO_BUFFER 68U
#define TOE_COUNTER_DROP_DMA_FAULT 69U
#define TOE_COUNTER_EXCEPTION_ARP 70U
#define TOE_COUNTER_EXCEPTION_ICMP 71U
#define TOE_COUNTER_EXCEPTION_FRAGMENT 72U
#define TOE_COUNTER_EXCEPTION_IP_OPTIONS 73U
#define TOE_COUNTER_EXCEPTION_SYN 74U
#define TOE_COUNTER_EXCEPTION_UNKNOWN_FLOW 75U
#define TOE_COUNTER_EXCEPTION_OTHER_PROTOCOL 76U

/* counters::Exception: the reason in a frame record */
#define TOE_EXCEPTION_ARP 0U
#define TOE_EXCEPTION_ICMP 1U
#define TOE_EXCEPTION_FRAGMENT 2U
#define TOE_EXCEPTION_IP_OPTIONS 3U
#define TOE_EXCEPTION_SYN 4U
#define TOE_EXCEPTION_UNKNOWN_FLOW 5U
#define TOE_EXCEPTION_OTHER_PROTOCOL 6U

/* ids::FlowId: 8 bytes */
struct toe_flow_id {
    uint32_t index;       /*   0 */
    uint32_t generation;  /*   4 */
} TOE_ALIGNED(4);

/* flow::FlowKey: 36 bytes */
struct toe_flow_key {
    uint8_t local_ip[16];   /*   0 */
    uint8_t remote_ip[16];  /*  16 */
    uint16_t local_port;    /*  32 */
    uint16_t remote_port;   /*  34 */
} TOE_ALIGNED(2);

/* flow::Identity: 64 bytes */
struct toe_flow_identity {
    struct toe_flow_key key;  /*   0 */
    uint16_t region;          /*  36 */
    uint16_t ctx;             /*  38 */
    uint32_t opaque;          /*  40 */
    uint16_t next_hop;        /*  44 */
    uint16_t vlan;            /*  46 */
    uint8_t ttl;              /*  48 */
    uint8_t tos;              /*  49 */
    uint8_t reo_wnd_more;     /*  50 */
    uint8_t reo_wnd_persist;  /*  51 */
    uint32_t retransmits;     /*  52 */
    uint32_t prior_cwnd;      /*  56 */
    uint32_t prior_ssthresh;  /*  60 */
} TOE_ALIGNED(64);

/* flow::RxState: 64 bytes */
struct toe_flow_rx {
    uint32_t buf;            /*   0 */
    uint8_t buf_log2;        /*   4 */
    uint8_t wscale;          /*   5 */
    uint16_t mss;            /*   6 */
    uint32_t irs;            /*   8 */
    uint32_t rcv_nxt;        /*  12 */
    uint32_t rcv_adv;        /*  16 */
    uint32_t rx_tail;        /*  20 */
    uint32_t ts_recent;      /*  24 */
    uint32_t last_tx_ms;     /*  28 */
    uint32_t last_ack_sent;  /*  32 */
    uint32_t fin_seq;        /*  36 */
    uint32_t flags;          /*  40 */
    uint8_t state;           /*  44 */
    uint8_t delack_segs;     /*  45 */
    uint8_t quickack;        /*  46 */
    uint8_t soft_error;      /*  47 */
    uint32_t delack_ms;      /*  48 */
    uint32_t last_rx_ms;     /*  52 */
    uint32_t ts_offset;      /*  56 */
    uint32_t snd_sml;        /*  60 */
} TOE_ALIGNED(64);

/* flow::TxState: 64 bytes */
struct toe_flow_tx {
    uint32_t buf;          /*   0 */
    uint8_t buf_log2;      /*   4 */
    uint8_t wscale;        /*   5 */
    uint8_t backoff;       /*   6 */
    uint8_t dup_acks;      /*   7 */
    uint32_t iss;          /*   8 */
    uint32_t snd_una;      /*  12 */
    uint32_t snd_nxt;      /*  16 */
    uint32_t snd_max;      /*  20 */
    uint32_t snd_wnd;      /*  24 */
    uint32_t snd_wl1;      /*  28 */
    uint32_t snd_wl2;      /*  32 */
    uint32_t tx_head;      /*  36 */
    uint32_t srtt_us;      /*  40 */
    uint32_t rttvar_us;    /*  44 */
    uint32_t timer_ms;     /*  48 */
    uint8_t timer;         /*  52 */
    uint8_t rto_min_4ms;   /*  53 */
    uint8_t max_wnd_log2;  /*  54 */
    uint8_t probes;        /*  55 */
    uint32_t min_rtt_us;   /*  56 */
    uint32_t board;        /*  60 */
} TOE_ALIGNED(64);

/* flow::CcState: 64 bytes */
struct toe_flow_cc {
    uint32_t cwnd;            /*   0 */
    uint32_t ssthresh;        /*   4 */
    uint32_t recover;         /*   8 */
    uint8_t algorithm;        /*  12 */
    uint8_t timers;           /*  13 */
    uint8_t challenges;       /*  14 */
    uint8_t challenge_epoch;  /*  15 */
    uint32_t words[4];        /*  16 */
    uint32_t ooo[2][3];       /*  32 */
    uint32_t ooo_more;        /*  56 */
    uint32_t sent;            /*  60 */
} TOE_ALIGNED(64);

/* flow::FlowOptions: 12 bytes */
struct toe_flow_options {
    uint32_t user_timeout_ms;  /*   0 */
    uint16_t keep_idle_s;      /*   4 */
    uint16_t keep_interval_s;  /*   6 */
    uint8_t keep_count;        /*   8 */
    uint8_t tos;               /*   9 */
    uint8_t ttl;               /*  10 */
    uint8_t quick_ack;         /*  11 */
} TOE_ALIGNED(4);

/* context::HostLine: 64 bytes */
struct toe_host_line {
    uint32_t hc_tail;        /*   0 */
    uint32_t ev_head;        /*   4 */
    uint32_t parked;         /*   8 */
    uint32_t _reserved[13];  /*  12 */
} TOE_ALIGNED(64);

/* context::CardLine: 64 bytes */
struct toe_card_line {
    uint32_t hc_head;        /*   0 */
    uint32_t ev_tail;        /*   4 */
    uint32_t parked;         /*   8 */
    uint32_t failed;         /*  12 */
    uint32_t _reserved[12];  /*  16 */
} TOE_ALIGNED(64);

/* context::DaemonLine: 64 bytes */
struct toe_daemon_line {
    uint32_t notices;        /*   0 */
    uint32_t failed;         /*   4 */
    uint32_t _reserved[14];  /*   8 */
} TOE_ALIGNED(64);

/* region::SlotConn: 64 bytes */
struct toe_slot_conn {
    uint32_t state;           /*   0 */
    uint32_t error;           /*   4 */
    struct toe_flow_id flow;  /*   8 */
    uint64_t tx_off;          /*  16 */
    uint64_t rx_off;          /*  24 */
    uint32_t tx_len;          /*  32 */
    uint32_t rx_len;          /*  36 */
    uint32_t ctx;             /*  40 */
    uint32_t _reserved[5];    /*  44 */
} TOE_ALIGNED(64);

/* region::SlotNames: 64 bytes */
struct toe_slot_names {
    uint8_t local_ip[16];   /*   0 */
    uint8_t remote_ip[16];  /*  16 */
    uint16_t local_port;    /*  32 */
    uint16_t remote_port;   /*  34 */
    uint32_t _reserved[7];  /*  36 */
} TOE_ALIGNED(64);

/* region::SlotTx: 64 bytes */
struct toe_slot_tx {
    uint32_t head;            /*   0 */
    uint32_t lock;            /*   4 */
    uint32_t flags;           /*   8 */
    uint32_t nonblocking;     /*  12 */
    uint32_t timeout_us;      /*  16 */
    uint32_t slot_flags;      /*  20 */
    uint32_t linger;          /*  24 */
    uint32_t urgent;          /*  28 */
    uint64_t pacing;          /*  32 */
    uint32_t tos;             /*  40 */
    uint32_t ttl;             /*  44 */
    uint32_t max_segment;     /*  48 */
    uint32_t syn_retries;     /*  52 */
    uint32_t defer_accept_s;  /*  56 */
    uint32_t _reserved;       /*  60 */
} TOE_ALIGNED(64);

/* region::SlotRx: 64 bytes */
struct toe_slot_rx {
    uint32_t tail;           /*   0 */
    uint32_t lock;           /*   4 */
    uint32_t told;           /*   8 */
    uint32_t timeout_us;     /*  12 */
    uint32_t low_water;      /*  16 */
    uint32_t _reserved;      /*  20 */
    uint64_t urgent;         /*  24 */
    uint32_t _reserved2[8];  /*  32 */
} TOE_ALIGNED(64);

/* region::SlotEvent: 64 bytes */
struct toe_slot_event {
    uint32_t rx_head;        /*   0 */
    uint32_t tx_tail;        /*   4 */
    uint32_t flags;          /*   8 */
    uint32_t error;          /*  12 */
    uint32_t srtt_us;        /*  16 */
    uint32_t cwnd;           /*  20 */
    uint32_t _reserved[10];  /*  24 */
} TOE_ALIGNED(64);

/* region::SlotListen: 64 bytes */
struct toe_slot_listen {
    uint32_t ring;           /*   0 */
    uint32_t head;           /*   4 */
    uint32_t tail;           /*   8 */
    uint32_t _reserved[13];  /*  12 */
} TOE_ALIGNED(64);

/* region::SlotOptions: 64 bytes */
struct toe_slot_options {
    uint32_t user_timeout_ms;     /*   0 */
    uint32_t keep_idle_s;         /*   4 */
    uint32_t keep_interval_s;     /*   8 */
    uint32_t keep_count;          /*  12 */
    uint32_t quick_ack;           /*  16 */
    uint32_t linger2_s;           /*  20 */
    uint32_t not_sent_low_water;  /*  24 */
    uint32_t window_clamp;        /*  28 */
    uint32_t _reserved[8];        /*  32 */
} TOE_ALIGNED(64);

/* desc::HostDesc: 64 bytes */
struct toe_host_desc {
    uint32_t kind;                    /*   0 */
    uint32_t flags;                   /*   4 */
    struct toe_flow_id flow;          /*   8 */
    uint32_t tx_head;                 /*  16 */
    uint32_t rx_tail;                 /*  20 */
    uint32_t opaque;                  /*  24 */
    uint32_t urgent;                  /*  28 */
    struct toe_flow_options options;  /*  32 */
    uint32_t _reserved[4];            /*  44 */
    uint32_t phase;                   /*  60 */
} TOE_ALIGNED(64);

/* desc::EventDesc: 64 bytes */
struct toe_event_desc {
    uint32_t kind;            /*   0 */
    uint32_t flags;           /*   4 */
    struct toe_flow_id flow;  /*   8 */
    uint32_t rx_head;         /*  16 */
    uint32_t tx_tail;         /*  20 */
    uint32_t opaque;          /*  24 */
    uint32_t error;           /*  28 */
    uint32_t srtt_us;         /*  32 */
    uint32_t cwnd;            /*  36 */
    uint32_t urgent;          /*  40 */
    uint32_t _reserved[4];    /*  44 */
    uint32_t phase;           /*  60 */
} TOE_ALIGNED(64);

/* context::ContextPage: 4096 bytes */
struct toe_context_page {
    struct toe_host_line host;      /*   0 */
    struct toe_card_line card;      /*  64 */
    struct toe_daemon_line daemon;  /* 128 */
    uint8_t _reserved[61][64];      /* 192 */
} TOE_ALIGNED(4096);

/* flow::FlowState: 256 bytes */
struct toe_flow_state {
    struct toe_flow_identity id;  /*   0 */
    struct toe_flow_rx rx;        /*  64 */
    struct toe_flow_tx tx;        /* 128 */
    struct toe_flow_cc cc;        /* 192 */
} TOE_ALIGNED(64);

/* control::ControlMsg: 512 bytes */
struct toe_control_msg {
    uint32_t kind;            /*   0 */
    uint32_t tag;             /*   4 */
    uint32_t status;          /*   8 */
    uint32_t _reserved;       /*  12 */
    struct toe_flow_id flow;  /*  16 */
    uint64_t args[5];         /*  24 */
    uint8_t body[440];        /*  64 */
    uint32_t _reserved2;      /* 504 */
    uint32_t phase;           /* 508 */
} TOE_ALIGNED(64);

/* control::RateOrder: 16 bytes */
struct toe_rate_order {
    struct toe_flow_id flow;  /*   0 */
    uint32_t rate_kbps;       /*   8 */
    uint32_t _reserved;       /*  12 */
} TOE_ALIGNED(4);

/* control::RateReport: 40 bytes */
struct toe_rate_report {
    struct toe_flow_id flow;  /*   0 */
    uint32_t acked;           /*   8 */
    uint32_t marked;          /*  12 */
    uint32_t unacked;         /*  16 */
    uint32_t srtt_us;         /*  20 */
    uint32_t retransmits;     /*  24 */
    uint32_t rate_kbps;       /*  28 */
    uint8_t algorithm;        /*  32 */
    uint8_t _reserved[3];     /*  33 */
    uint32_t mss;             /*  36 */
} TOE_ALIGNED(4);

/* observe::StageRecord: 56 bytes */
struct toe_stage_record {
    uint16_t stage;        /*   0 */
    uint16_t instance;     /*   2 */
    uint16_t core;         /*   4 */
    uint16_t flags;        /*   6 */
    uint32_t cpu;          /*   8 */
    uint32_t queue;        /*  12 */
    uint32_t queue_max;    /*  16 */
    uint32_t credits;      /*  20 */
    uint32_t credits_max;  /*  24 */
    uint32_t _reserved;    /*  28 */
    uint64_t items;        /*  32 */
    uint64_t busy_ns;      /*  40 */
    uint64_t clock_ns;     /*  48 */
} TOE_ALIGNED(8);

/* observe::TraceRecord: 48 bytes */
struct toe_trace_record {
    uint64_t at_ns;     /*   0 */
    uint64_t begin_ns;  /*   8 */
    uint8_t stage;      /*  16 */
    uint8_t instance;   /*  17 */
    uint8_t kind;       /*  18 */
    uint8_t core;       /*  19 */
    uint16_t group;     /*  20 */
    uint16_t port;      /*  22 */
    uint32_t number;    /*  24 */
    uint32_t out;       /*  28 */
    uint32_t flow;      /*  32 */
    uint32_t seq;       /*  36 */
    uint32_t len;       /*  40 */
    uint32_t next;      /*  44 */
} TOE_ALIGNED(8);

/* frames::RingHeader: 128 bytes */
struct toe_frame_ring_header {
    uint32_t tail;            /*   0 */
    uint32_t _reserved[15];   /*   4 */
    uint32_t head;            /*  64 */
    uint32_t _reserved2[15];  /*  68 */
} TOE_ALIGNED(64);

/* frames::FrameRecord: 64 bytes */
struct toe_frame_record {
    uint32_t kind;            /*   0 */
    uint32_t len;             /*   4 */
    uint32_t flags;           /*   8 */
    uint32_t reason;          /*  12 */
    uint16_t csum_start;      /*  16 */
    uint16_t csum_offset;     /*  18 */
    uint16_t gso_size;        /*  20 */
    uint16_t _reserved;       /*  22 */
    uint32_t _reserved2[10];  /*  24 */
} TOE_ALIGNED(64);

/* region::RegionHeader: 96 bytes */
struct toe_region_header {
    uint64_t magic;           /*   0 */
    uint32_t abi_version;     /*   8 */
    uint32_t region;          /*  12 */
    uint64_t len;             /*  16 */
    uint64_t contexts_off;    /*  24 */
    uint64_t queues_off;      /*  32 */
    uint64_t sockets_off;     /*  40 */
    uint64_t accepts_off;     /*  48 */
    uint64_t payload_off;     /*  56 */
    uint64_t payload_len;     /*  64 */
    uint32_t n_contexts;      /*  72 */
    uint32_t hc_entries;      /*  76 */
    uint32_t ev_entries;      /*  80 */
    uint32_t n_sockets;       /*  84 */
    uint32_t n_listeners;     /*  88 */
    uint32_t accept_entries;  /*  92 */
} TOE_ALIGNED(8);

/* region::SocketSlot: 448 bytes */
struct toe_socket_slot {
    struct toe_slot_conn conn;        /*   0 */
    struct toe_slot_names names;      /*  64 */
    struct toe_slot_tx tx;            /* 128 */
    struct toe_slot_rx rx;            /* 192 */
    struct toe_slot_event event;      /* 256 */
    struct toe_slot_listen listen;    /* 320 */
    struct toe_slot_options options;  /* 384 */
} TOE_ALIGNED(64);

/* region::AcceptRecord: 128 bytes */
struct toe_accept_record {
    struct toe_flow_id flow;      /*   0 */
    uint64_t tx_off;              /*   8 */
    uint64_t rx_off;              /*  16 */
    uint32_t tx_len;              /*  24 */
    uint32_t rx_len;              /*  28 */
    uint32_t _reserved[8];        /*  32 */
    struct toe_slot_names names;  /*  64 */
} TOE_ALIGNED(128);

/* window::CardPage: 4096 bytes */
struct toe_window_card_page {
    uint32_t magic;            /*   0 */
    uint32_t version;          /*   4 */
    uint32_t caps;             /*   8 */
    uint32_t status;           /*  12 */
    uint32_t max_flows;        /*  16 */
    uint32_t max_contexts;     /*  20 */
    uint32_t max_regions;      /*  24 */
    uint32_t mtu;              /*  28 */
    uint32_t mac_lo;           /*  32 */
    uint32_t mac_hi;           /*  36 */
    uint32_t _host[3];         /*  40 */
    uint32_t max_next_hops;    /*  52 */
    uint32_t link;             /*  56 */
    uint32_t _registers;       /*  60 */
    uint32_t done;             /*  64 */
    uint32_t outcome;          /*  68 */
    uint32_t peer;             /*  72 */
    uint32_t instance;         /*  76 */
    uint32_t window_lo;        /*  80 */
    uint32_t window_hi;        /*  84 */
    uint32_t stage;            /*  88 */
    uint32_t failed_core;      /*  92 */
    uint32_t failure_len;      /*  96 */
    uint32_t build[5];         /* 100 */
    uint32_t _reserved[2];     /* 120 */
    uint8_t failure[512];      /* 128 */
    uint8_t _reserved2[3456];  /* 640 */
} TOE_ALIGNED(4096);

/* window::HostPage: 4096 bytes */
struct toe_window_host_page {
    uint32_t number;           /*   0 */
    uint32_t request;          /*   4 */
    uint32_t control_lo;       /*   8 */
    uint32_t control_hi;       /*  12 */
    uint32_t peer;             /*  16 */
    uint32_t window_lo;        /*  20 */
    uint32_t window_hi;        /*  24 */
    uint32_t version;          /*  28 */
    uint32_t memory_lo;        /*  32 */
    uint32_t memory_hi;        /*  36 */
    uint32_t _reserved[1014];  /*  40 */
} TOE_ALIGNED(4096);

/* window::LogHeader: 4096 bytes */
struct toe_window_log_header {
    uint32_t begun;            /*   0 */
    uint32_t written;          /*   4 */
    uint32_t dropped;          /*   8 */
    uint32_t _reserved[1021];  /*  12 */
} TOE_ALIGNED(4096);

/* app::Info: 64 bytes */
struct toe_app_info {
    uint32_t srtt_us;       /*   0 */
    uint32_t rttvar_us;     /*   4 */
    uint32_t cwnd;          /*   8 */
    uint32_t ssthresh;      /*  12 */
    uint32_t unacked;       /*  16 */
    uint32_t snd_wnd;       /*  20 */
    uint32_t retransmits;   /*  24 */
    uint32_t flags;         /*  28 */
    uint32_t rto_min_ms;    /*  32 */
    uint32_t since_tx_ms;   /*  36 */
    uint32_t since_rx_ms;   /*  40 */
    uint8_t wscales;        /*  44 */
    uint8_t algorithm;      /*  45 */
    uint16_t mss;           /*  46 */
    uint8_t backoff;        /*  48 */
    uint8_t probes;         /*  49 */
    uint16_t _reserved[7];  /*  50 */
} TOE_ALIGNED(4);

/* app::Request: 128 bytes */
struct toe_app_request {
    uint32_t op;             /*   0 */
    uint32_t slot;           /*   4 */
    uint64_t args[4];        /*   8 */
    uint8_t ip[16];          /*  40 */
    uint16_t port;           /*  56 */
    uint16_t flags;          /*  58 */
    uint32_t _reserved;      /*  60 */
    uint64_t _reserved2[8];  /*  64 */
} TOE_ALIGNED(8);

/* app::Reply: 128 bytes */
struct toe_app_reply {
    uint32_t errno;      /*   0 */
    uint32_t count;      /*   4 */
    uint64_t args[4];    /*   8 */
    uint8_t ip[16];      /*  40 */
    uint16_t port;       /*  56 */
    uint16_t _reserved;  /*  58 */
    uint32_t scope;      /*  60 */
    uint16_t slots[32];  /*  64 */
} TOE_ALIGNED(8);

#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
_Static_assert(sizeof(struct toe_flow_id) == 8, "toe_flow_id");
_Static_assert(sizeof(struct toe_flow_key) == 36, "toe_flow_key");
_Static_assert(sizeof(struct toe_flow_identity) == 64, "toe_flow_identity");
_Static_assert(sizeof(struct toe_flow_rx) == 64, "toe_flow_rx");
_Static_assert(sizeof(struct toe_flow_tx) == 64, "toe_flow_tx");
_Static_assert(sizeof(struct toe_flow_cc) == 64, "toe_flow_cc");
_Static_assert(sizeof(struct toe_flow_options) == 12, "toe_flow_options");
_Static_assert(sizeof(struct toe_host_line) == 64, "toe_host_line");
_Static_assert(sizeof(struct toe_card_line) == 64, "toe_card_line");
_Static_assert(sizeof(struct toe_daemon_line) == 64, "toe_daemon_line");
_Static_assert(sizeof(struct toe_slot_conn) == 64, "toe_slot_conn");
_Static_assert(sizeof(struct toe_slot_names) == 64, "toe_slot_names");
_Static_assert(sizeof(struct toe_slot_tx) == 64, "toe_slot_tx");
_Static_assert(sizeof(struct toe_slot_rx) == 64, "toe_slot_rx");
_Static_assert(sizeof(struct toe_slot_event) == 64, "toe_slot_event");
_Static_assert(sizeof(struct toe_slot_listen) == 64, "toe_slot_listen");
_Static_assert(sizeof(struct toe_slot_options) == 64, "toe_slot_options");
_Static_assert(sizeof(struct toe_host_desc) == 64, "toe_host_desc");
_Static_assert(sizeof(struct toe_event_desc) == 64, "toe_event_desc");
_Static_assert(sizeof(struct toe_context_page) == 4096, "toe_context_page");
_Static_assert(sizeof(struct toe_flow_state) == 256, "toe_flow_state");
_Static_assert(sizeof(struct toe_control_msg) == 512, "toe_control_msg");
_Static_assert(sizeof(struct toe_rate_order) == 16, "toe_rate_order");
_Static_assert(sizeof(struct toe_rate_report) == 40, "toe_rate_report");
_Static_assert(sizeof(struct toe_stage_record) == 56, "toe_stage_record");
_Static_assert(sizeof(struct toe_trace_record) == 48, "toe_trace_record");
_Static_assert(sizeof(struct toe_frame_ring_header) == 128, "toe_frame_ring_header");
_Static_assert(sizeof(struct toe_frame_record) == 64, "toe_frame_record");
_Static_assert(sizeof(struct toe_region_header) == 96, "toe_region_header");
_Static_assert(sizeof(struct toe_socket_slot) == 448, "toe_socket_slot");
_Static_assert(sizeof(struct toe_accept_record) == 128, "toe_accept_record");
_Static_assert(sizeof(struct toe_window_card_page) == 4096, "toe_window_card_page");
_Static_assert(sizeof(struct toe_window_host_page) == 4096, "toe_window_host_page");
_Static_assert(sizeof(struct toe_window_log_header) == 4096, "toe_window_log_header");
_Static_assert(sizeof(struct toe_app_info) == 64, "toe_app_info");
_Static_assert(sizeof(struct toe_app_request) == 128, "toe_app_request");
_Static_assert(sizeof(struct toe_app_reply) == 128, "toe_app_reply");
#endif

#endif
