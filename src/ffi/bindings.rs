#[repr(C)] pub struct nvlist { _unused: [u8; 0], _pinned: ::core::marker::PhantomData<(*mut u8, ::core::marker::PhantomPinned)> }
#[repr(C)] pub struct nvpair { _unused: [u8; 0], _pinned: ::core::marker::PhantomData<(*mut u8, ::core::marker::PhantomPinned)> }
#[repr(C)] pub struct zfs_handle { _unused: [u8; 0], _pinned: ::core::marker::PhantomData<(*mut u8, ::core::marker::PhantomPinned)> }
#[repr(C)] pub struct zpool_handle { _unused: [u8; 0], _pinned: ::core::marker::PhantomData<(*mut u8, ::core::marker::PhantomPinned)> }
#[repr(C)] pub struct libzfs_handle { _unused: [u8; 0], _pinned: ::core::marker::PhantomData<(*mut u8, ::core::marker::PhantomPinned)> }
#[repr(transparent)] #[derive(Clone, Copy)] pub struct zfs_prop_t(pub ::core::ffi::c_int);

pub const NV_ENCODE_NATIVE: u32 = 0;
pub const NV_ENCODE_XDR: u32 = 1;
pub const NV_UNIQUE_NAME: u32 = 1;
pub const ZFS_SET_NOMOUNT: u32 = 1;
pub const ZFS_ITER_SIMPLE: u32 = 64;
impl boolean_t {
    pub const B_FALSE: boolean_t = boolean_t(0);
    pub const B_TRUE: boolean_t = boolean_t(1);
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub struct boolean_t(pub ::core::ffi::c_uint);
pub type uchar_t = ::core::ffi::c_uchar;
pub type uint_t = ::core::ffi::c_uint;
impl data_type_t {
    pub const DATA_TYPE_DONTCARE: data_type_t = data_type_t(-1);
    pub const DATA_TYPE_UNKNOWN: data_type_t = data_type_t(0);
    pub const DATA_TYPE_BOOLEAN: data_type_t = data_type_t(1);
    pub const DATA_TYPE_BYTE: data_type_t = data_type_t(2);
    pub const DATA_TYPE_INT16: data_type_t = data_type_t(3);
    pub const DATA_TYPE_UINT16: data_type_t = data_type_t(4);
    pub const DATA_TYPE_INT32: data_type_t = data_type_t(5);
    pub const DATA_TYPE_UINT32: data_type_t = data_type_t(6);
    pub const DATA_TYPE_INT64: data_type_t = data_type_t(7);
    pub const DATA_TYPE_UINT64: data_type_t = data_type_t(8);
    pub const DATA_TYPE_STRING: data_type_t = data_type_t(9);
    pub const DATA_TYPE_BYTE_ARRAY: data_type_t = data_type_t(10);
    pub const DATA_TYPE_INT16_ARRAY: data_type_t = data_type_t(11);
    pub const DATA_TYPE_UINT16_ARRAY: data_type_t = data_type_t(12);
    pub const DATA_TYPE_INT32_ARRAY: data_type_t = data_type_t(13);
    pub const DATA_TYPE_UINT32_ARRAY: data_type_t = data_type_t(14);
    pub const DATA_TYPE_INT64_ARRAY: data_type_t = data_type_t(15);
    pub const DATA_TYPE_UINT64_ARRAY: data_type_t = data_type_t(16);
    pub const DATA_TYPE_STRING_ARRAY: data_type_t = data_type_t(17);
    pub const DATA_TYPE_HRTIME: data_type_t = data_type_t(18);
    pub const DATA_TYPE_NVLIST: data_type_t = data_type_t(19);
    pub const DATA_TYPE_NVLIST_ARRAY: data_type_t = data_type_t(20);
    pub const DATA_TYPE_BOOLEAN_VALUE: data_type_t = data_type_t(21);
    pub const DATA_TYPE_INT8: data_type_t = data_type_t(22);
    pub const DATA_TYPE_UINT8: data_type_t = data_type_t(23);
    pub const DATA_TYPE_BOOLEAN_ARRAY: data_type_t = data_type_t(24);
    pub const DATA_TYPE_INT8_ARRAY: data_type_t = data_type_t(25);
    pub const DATA_TYPE_UINT8_ARRAY: data_type_t = data_type_t(26);
    pub const DATA_TYPE_DOUBLE: data_type_t = data_type_t(27);
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub struct data_type_t(pub ::core::ffi::c_int);
pub type nvpair_t = nvpair;
pub type nvlist_t = nvlist;
impl zfs_type_t {
    pub const ZFS_TYPE_INVALID: zfs_type_t = zfs_type_t(0);
    pub const ZFS_TYPE_FILESYSTEM: zfs_type_t = zfs_type_t(1);
    pub const ZFS_TYPE_SNAPSHOT: zfs_type_t = zfs_type_t(2);
    pub const ZFS_TYPE_VOLUME: zfs_type_t = zfs_type_t(4);
    pub const ZFS_TYPE_POOL: zfs_type_t = zfs_type_t(8);
    pub const ZFS_TYPE_BOOKMARK: zfs_type_t = zfs_type_t(16);
    pub const ZFS_TYPE_VDEV: zfs_type_t = zfs_type_t(32);
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub struct zfs_type_t(pub ::core::ffi::c_uint);
impl zprop_source_t {
    pub const ZPROP_SRC_NONE: zprop_source_t = zprop_source_t(1);
    pub const ZPROP_SRC_DEFAULT: zprop_source_t = zprop_source_t(2);
    pub const ZPROP_SRC_TEMPORARY: zprop_source_t = zprop_source_t(4);
    pub const ZPROP_SRC_LOCAL: zprop_source_t = zprop_source_t(8);
    pub const ZPROP_SRC_INHERITED: zprop_source_t = zprop_source_t(16);
    pub const ZPROP_SRC_RECEIVED: zprop_source_t = zprop_source_t(32);
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub struct zprop_source_t(pub ::core::ffi::c_uint);
impl zfs_errno_t {
    pub const ZFS_ERR_CHECKPOINT_EXISTS: zfs_errno_t = zfs_errno_t(1024);
    pub const ZFS_ERR_DISCARDING_CHECKPOINT: zfs_errno_t = zfs_errno_t(1025);
    pub const ZFS_ERR_NO_CHECKPOINT: zfs_errno_t = zfs_errno_t(1026);
    pub const ZFS_ERR_DEVRM_IN_PROGRESS: zfs_errno_t = zfs_errno_t(1027);
    pub const ZFS_ERR_VDEV_TOO_BIG: zfs_errno_t = zfs_errno_t(1028);
    pub const ZFS_ERR_IOC_CMD_UNAVAIL: zfs_errno_t = zfs_errno_t(1029);
    pub const ZFS_ERR_IOC_ARG_UNAVAIL: zfs_errno_t = zfs_errno_t(1030);
    pub const ZFS_ERR_IOC_ARG_REQUIRED: zfs_errno_t = zfs_errno_t(1031);
    pub const ZFS_ERR_IOC_ARG_BADTYPE: zfs_errno_t = zfs_errno_t(1032);
    pub const ZFS_ERR_WRONG_PARENT: zfs_errno_t = zfs_errno_t(1033);
    pub const ZFS_ERR_FROM_IVSET_GUID_MISSING: zfs_errno_t = zfs_errno_t(1034);
    pub const ZFS_ERR_FROM_IVSET_GUID_MISMATCH: zfs_errno_t = zfs_errno_t(1035);
    pub const ZFS_ERR_SPILL_BLOCK_FLAG_MISSING: zfs_errno_t = zfs_errno_t(1036);
    pub const ZFS_ERR_UNKNOWN_SEND_STREAM_FEATURE: zfs_errno_t = zfs_errno_t(1037);
    pub const ZFS_ERR_EXPORT_IN_PROGRESS: zfs_errno_t = zfs_errno_t(1038);
    pub const ZFS_ERR_BOOKMARK_SOURCE_NOT_ANCESTOR: zfs_errno_t = zfs_errno_t(1039);
    pub const ZFS_ERR_STREAM_TRUNCATED: zfs_errno_t = zfs_errno_t(1040);
    pub const ZFS_ERR_STREAM_LARGE_BLOCK_MISMATCH: zfs_errno_t = zfs_errno_t(1041);
    pub const ZFS_ERR_RESILVER_IN_PROGRESS: zfs_errno_t = zfs_errno_t(1042);
    pub const ZFS_ERR_REBUILD_IN_PROGRESS: zfs_errno_t = zfs_errno_t(1043);
    pub const ZFS_ERR_BADPROP: zfs_errno_t = zfs_errno_t(1044);
    pub const ZFS_ERR_VDEV_NOTSUP: zfs_errno_t = zfs_errno_t(1045);
    pub const ZFS_ERR_NOT_USER_NAMESPACE: zfs_errno_t = zfs_errno_t(1046);
    pub const ZFS_ERR_RESUME_EXISTS: zfs_errno_t = zfs_errno_t(1047);
    pub const ZFS_ERR_CRYPTO_NOTSUP: zfs_errno_t = zfs_errno_t(1048);
    pub const ZFS_ERR_RAIDZ_EXPAND_IN_PROGRESS: zfs_errno_t = zfs_errno_t(1049);
    pub const ZFS_ERR_ASHIFT_MISMATCH: zfs_errno_t = zfs_errno_t(1050);
    pub const ZFS_ERR_STREAM_LARGE_MICROZAP: zfs_errno_t = zfs_errno_t(1051);
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub struct zfs_errno_t(pub ::core::ffi::c_uint);
impl lzc_dataset_type {
    pub const LZC_DATSET_TYPE_ZFS: lzc_dataset_type = lzc_dataset_type(2);
    pub const LZC_DATSET_TYPE_ZVOL: lzc_dataset_type = lzc_dataset_type(3);
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub struct lzc_dataset_type(pub ::core::ffi::c_uint);
impl lzc_send_flags {
    pub const LZC_SEND_FLAG_EMBED_DATA: lzc_send_flags = lzc_send_flags(1);
    pub const LZC_SEND_FLAG_LARGE_BLOCK: lzc_send_flags = lzc_send_flags(2);
    pub const LZC_SEND_FLAG_COMPRESS: lzc_send_flags = lzc_send_flags(4);
    pub const LZC_SEND_FLAG_RAW: lzc_send_flags = lzc_send_flags(8);
    pub const LZC_SEND_FLAG_SAVED: lzc_send_flags = lzc_send_flags(16);
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub struct lzc_send_flags(pub ::core::ffi::c_uint);
impl zfs_error {
    pub const EZFS_SUCCESS: zfs_error = zfs_error(0);
    pub const EZFS_NOMEM: zfs_error = zfs_error(2000);
    pub const EZFS_BADPROP: zfs_error = zfs_error(2001);
    pub const EZFS_PROPREADONLY: zfs_error = zfs_error(2002);
    pub const EZFS_PROPTYPE: zfs_error = zfs_error(2003);
    pub const EZFS_PROPNONINHERIT: zfs_error = zfs_error(2004);
    pub const EZFS_PROPSPACE: zfs_error = zfs_error(2005);
    pub const EZFS_BADTYPE: zfs_error = zfs_error(2006);
    pub const EZFS_BUSY: zfs_error = zfs_error(2007);
    pub const EZFS_EXISTS: zfs_error = zfs_error(2008);
    pub const EZFS_NOENT: zfs_error = zfs_error(2009);
    pub const EZFS_BADSTREAM: zfs_error = zfs_error(2010);
    pub const EZFS_DSREADONLY: zfs_error = zfs_error(2011);
    pub const EZFS_VOLTOOBIG: zfs_error = zfs_error(2012);
    pub const EZFS_INVALIDNAME: zfs_error = zfs_error(2013);
    pub const EZFS_BADRESTORE: zfs_error = zfs_error(2014);
    pub const EZFS_BADBACKUP: zfs_error = zfs_error(2015);
    pub const EZFS_BADTARGET: zfs_error = zfs_error(2016);
    pub const EZFS_NODEVICE: zfs_error = zfs_error(2017);
    pub const EZFS_BADDEV: zfs_error = zfs_error(2018);
    pub const EZFS_NOREPLICAS: zfs_error = zfs_error(2019);
    pub const EZFS_RESILVERING: zfs_error = zfs_error(2020);
    pub const EZFS_BADVERSION: zfs_error = zfs_error(2021);
    pub const EZFS_POOLUNAVAIL: zfs_error = zfs_error(2022);
    pub const EZFS_DEVOVERFLOW: zfs_error = zfs_error(2023);
    pub const EZFS_BADPATH: zfs_error = zfs_error(2024);
    pub const EZFS_CROSSTARGET: zfs_error = zfs_error(2025);
    pub const EZFS_ZONED: zfs_error = zfs_error(2026);
    pub const EZFS_MOUNTFAILED: zfs_error = zfs_error(2027);
    pub const EZFS_UMOUNTFAILED: zfs_error = zfs_error(2028);
    pub const EZFS_UNSHARENFSFAILED: zfs_error = zfs_error(2029);
    pub const EZFS_SHARENFSFAILED: zfs_error = zfs_error(2030);
    pub const EZFS_PERM: zfs_error = zfs_error(2031);
    pub const EZFS_NOSPC: zfs_error = zfs_error(2032);
    pub const EZFS_FAULT: zfs_error = zfs_error(2033);
    pub const EZFS_IO: zfs_error = zfs_error(2034);
    pub const EZFS_INTR: zfs_error = zfs_error(2035);
    pub const EZFS_ISSPARE: zfs_error = zfs_error(2036);
    pub const EZFS_INVALCONFIG: zfs_error = zfs_error(2037);
    pub const EZFS_RECURSIVE: zfs_error = zfs_error(2038);
    pub const EZFS_NOHISTORY: zfs_error = zfs_error(2039);
    pub const EZFS_POOLPROPS: zfs_error = zfs_error(2040);
    pub const EZFS_POOL_NOTSUP: zfs_error = zfs_error(2041);
    pub const EZFS_POOL_INVALARG: zfs_error = zfs_error(2042);
    pub const EZFS_NAMETOOLONG: zfs_error = zfs_error(2043);
    pub const EZFS_OPENFAILED: zfs_error = zfs_error(2044);
    pub const EZFS_NOCAP: zfs_error = zfs_error(2045);
    pub const EZFS_LABELFAILED: zfs_error = zfs_error(2046);
    pub const EZFS_BADWHO: zfs_error = zfs_error(2047);
    pub const EZFS_BADPERM: zfs_error = zfs_error(2048);
    pub const EZFS_BADPERMSET: zfs_error = zfs_error(2049);
    pub const EZFS_NODELEGATION: zfs_error = zfs_error(2050);
    pub const EZFS_UNSHARESMBFAILED: zfs_error = zfs_error(2051);
    pub const EZFS_SHARESMBFAILED: zfs_error = zfs_error(2052);
    pub const EZFS_BADCACHE: zfs_error = zfs_error(2053);
    pub const EZFS_ISL2CACHE: zfs_error = zfs_error(2054);
    pub const EZFS_VDEVNOTSUP: zfs_error = zfs_error(2055);
    pub const EZFS_NOTSUP: zfs_error = zfs_error(2056);
    pub const EZFS_ACTIVE_SPARE: zfs_error = zfs_error(2057);
    pub const EZFS_UNPLAYED_LOGS: zfs_error = zfs_error(2058);
    pub const EZFS_REFTAG_RELE: zfs_error = zfs_error(2059);
    pub const EZFS_REFTAG_HOLD: zfs_error = zfs_error(2060);
    pub const EZFS_TAGTOOLONG: zfs_error = zfs_error(2061);
    pub const EZFS_PIPEFAILED: zfs_error = zfs_error(2062);
    pub const EZFS_THREADCREATEFAILED: zfs_error = zfs_error(2063);
    pub const EZFS_POSTSPLIT_ONLINE: zfs_error = zfs_error(2064);
    pub const EZFS_SCRUBBING: zfs_error = zfs_error(2065);
    pub const EZFS_ERRORSCRUBBING: zfs_error = zfs_error(2066);
    pub const EZFS_ERRORSCRUB_PAUSED: zfs_error = zfs_error(2067);
    pub const EZFS_NO_SCRUB: zfs_error = zfs_error(2068);
    pub const EZFS_DIFF: zfs_error = zfs_error(2069);
    pub const EZFS_DIFFDATA: zfs_error = zfs_error(2070);
    pub const EZFS_POOLREADONLY: zfs_error = zfs_error(2071);
    pub const EZFS_SCRUB_PAUSED: zfs_error = zfs_error(2072);
    pub const EZFS_SCRUB_PAUSED_TO_CANCEL: zfs_error = zfs_error(2073);
    pub const EZFS_ACTIVE_POOL: zfs_error = zfs_error(2074);
    pub const EZFS_CRYPTOFAILED: zfs_error = zfs_error(2075);
    pub const EZFS_NO_PENDING: zfs_error = zfs_error(2076);
    pub const EZFS_CHECKPOINT_EXISTS: zfs_error = zfs_error(2077);
    pub const EZFS_DISCARDING_CHECKPOINT: zfs_error = zfs_error(2078);
    pub const EZFS_NO_CHECKPOINT: zfs_error = zfs_error(2079);
    pub const EZFS_DEVRM_IN_PROGRESS: zfs_error = zfs_error(2080);
    pub const EZFS_VDEV_TOO_BIG: zfs_error = zfs_error(2081);
    pub const EZFS_IOC_NOTSUPPORTED: zfs_error = zfs_error(2082);
    pub const EZFS_TOOMANY: zfs_error = zfs_error(2083);
    pub const EZFS_INITIALIZING: zfs_error = zfs_error(2084);
    pub const EZFS_NO_INITIALIZE: zfs_error = zfs_error(2085);
    pub const EZFS_WRONG_PARENT: zfs_error = zfs_error(2086);
    pub const EZFS_TRIMMING: zfs_error = zfs_error(2087);
    pub const EZFS_NO_TRIM: zfs_error = zfs_error(2088);
    pub const EZFS_TRIM_NOTSUP: zfs_error = zfs_error(2089);
    pub const EZFS_NO_RESILVER_DEFER: zfs_error = zfs_error(2090);
    pub const EZFS_EXPORT_IN_PROGRESS: zfs_error = zfs_error(2091);
    pub const EZFS_REBUILDING: zfs_error = zfs_error(2092);
    pub const EZFS_VDEV_NOTSUP: zfs_error = zfs_error(2093);
    pub const EZFS_NOT_USER_NAMESPACE: zfs_error = zfs_error(2094);
    pub const EZFS_CKSUM: zfs_error = zfs_error(2095);
    pub const EZFS_RESUME_EXISTS: zfs_error = zfs_error(2096);
    pub const EZFS_SHAREFAILED: zfs_error = zfs_error(2097);
    pub const EZFS_RAIDZ_EXPAND_IN_PROGRESS: zfs_error = zfs_error(2098);
    pub const EZFS_ASHIFT_MISMATCH: zfs_error = zfs_error(2099);
    pub const EZFS_UNKNOWN: zfs_error = zfs_error(2100);
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub struct zfs_error(pub ::core::ffi::c_uint);
pub type zfs_handle_t = zfs_handle;
pub type zpool_handle_t = zpool_handle;
pub type libzfs_handle_t = libzfs_handle;
pub type zfs_iter_f = ::core::option::Option<
    unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
        arg2: *mut ::core::ffi::c_void,
    ) -> ::core::ffi::c_int,
>;
pub struct OpenZfs {
    __library: ::libloading::Library,
    pub nvlist_alloc: unsafe extern "C" fn(
        arg1: *mut *mut nvlist_t,
        arg2: uint_t,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int,
    pub nvlist_free: unsafe extern "C" fn(arg1: *mut nvlist_t),
    pub nvlist_size: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *mut usize,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int,
    pub nvlist_pack: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *mut *mut ::core::ffi::c_char,
        arg3: *mut usize,
        arg4: ::core::ffi::c_int,
        arg5: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int,
    pub nvlist_unpack: unsafe extern "C" fn(
        arg1: *mut ::core::ffi::c_char,
        arg2: usize,
        arg3: *mut *mut nvlist_t,
        arg4: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int,
    pub nvlist_dup: unsafe extern "C" fn(
        arg1: *const nvlist_t,
        arg2: *mut *mut nvlist_t,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_boolean: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_boolean_value: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: boolean_t,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_int32: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: i32,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_uint32: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: u32,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_int64: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: i64,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_uint64: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: u64,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_string: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_nvlist: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const nvlist_t,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_byte_array: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const uchar_t,
        arg4: uint_t,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_uint64_array: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const u64,
        arg4: uint_t,
    ) -> ::core::ffi::c_int,
    pub nvlist_add_string_array: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const *const ::core::ffi::c_char,
        arg4: uint_t,
    ) -> ::core::ffi::c_int,
    pub nvlist_next_nvpair: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *const nvpair_t,
    ) -> *mut nvpair_t,
    pub nvpair_name: unsafe extern "C" fn(
        arg1: *const nvpair_t,
    ) -> *const ::core::ffi::c_char,
    pub nvpair_type: unsafe extern "C" fn(arg1: *const nvpair_t) -> data_type_t,
    pub nvpair_value_boolean_value: unsafe extern "C" fn(
        arg1: *const nvpair_t,
        arg2: *mut boolean_t,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_int32: unsafe extern "C" fn(
        arg1: *const nvpair_t,
        arg2: *mut i32,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_uint32: unsafe extern "C" fn(
        arg1: *const nvpair_t,
        arg2: *mut u32,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_int64: unsafe extern "C" fn(
        arg1: *const nvpair_t,
        arg2: *mut i64,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_uint64: unsafe extern "C" fn(
        arg1: *const nvpair_t,
        arg2: *mut u64,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_string: unsafe extern "C" fn(
        arg1: *const nvpair_t,
        arg2: *mut *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_nvlist: unsafe extern "C" fn(
        arg1: *mut nvpair_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_byte_array: unsafe extern "C" fn(
        arg1: *mut nvpair_t,
        arg2: *mut *mut uchar_t,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_uint8_array: unsafe extern "C" fn(
        arg1: *mut nvpair_t,
        arg2: *mut *mut u8,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_uint64_array: unsafe extern "C" fn(
        arg1: *mut nvpair_t,
        arg2: *mut *mut u64,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_string_array: unsafe extern "C" fn(
        arg1: *mut nvpair_t,
        arg2: *mut *mut *const ::core::ffi::c_char,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int,
    pub nvpair_value_nvlist_array: unsafe extern "C" fn(
        arg1: *mut nvpair_t,
        arg2: *mut *mut *mut nvlist_t,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int,
    pub zfs_name_to_prop: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
    ) -> zfs_prop_t,
    pub libzfs_core_init: unsafe extern "C" fn() -> ::core::ffi::c_int,
    pub libzfs_core_fini: unsafe extern "C" fn(),
    pub lzc_snapshot: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *mut nvlist_t,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_create: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: lzc_dataset_type,
        arg3: *mut nvlist_t,
        arg4: *mut u8,
        arg5: uint_t,
    ) -> ::core::ffi::c_int,
    pub lzc_clone: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_promote: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *mut ::core::ffi::c_char,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int,
    pub lzc_destroy_snaps: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: boolean_t,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_bookmark: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_get_bookmarks: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *mut nvlist_t,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_destroy_bookmarks: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_hold: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: ::core::ffi::c_int,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_release: unsafe extern "C" fn(
        arg1: *mut nvlist_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_get_holds: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_send: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: ::core::ffi::c_int,
        arg4: lzc_send_flags,
    ) -> ::core::ffi::c_int,
    pub lzc_send_space: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: lzc_send_flags,
        arg4: *mut u64,
    ) -> ::core::ffi::c_int,
    pub lzc_receive: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *mut nvlist_t,
        arg3: *const ::core::ffi::c_char,
        arg4: boolean_t,
        arg5: boolean_t,
        arg6: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int,
    pub lzc_exists: unsafe extern "C" fn(arg1: *const ::core::ffi::c_char) -> boolean_t,
    pub lzc_rollback_to: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int,
    pub lzc_rename: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int,
    pub lzc_destroy: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int,
    pub lzc_channel_program: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: u64,
        arg4: u64,
        arg5: *mut nvlist_t,
        arg6: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_channel_program_nosync: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: u64,
        arg4: u64,
        arg5: *mut nvlist_t,
        arg6: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub lzc_sync: unsafe extern "C" fn(
        arg1: *const ::core::ffi::c_char,
        arg2: *mut nvlist_t,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub libzfs_init: unsafe extern "C" fn() -> *mut libzfs_handle_t,
    pub libzfs_fini: unsafe extern "C" fn(arg1: *mut libzfs_handle_t),
    pub libzfs_print_on_error: unsafe extern "C" fn(
        arg1: *mut libzfs_handle_t,
        arg2: boolean_t,
    ),
    pub libzfs_errno: unsafe extern "C" fn(
        arg1: *mut libzfs_handle_t,
    ) -> ::core::ffi::c_int,
    pub libzfs_error_description: unsafe extern "C" fn(
        arg1: *mut libzfs_handle_t,
    ) -> *const ::core::ffi::c_char,
    pub zpool_open: unsafe extern "C" fn(
        arg1: *mut libzfs_handle_t,
        arg2: *const ::core::ffi::c_char,
    ) -> *mut zpool_handle_t,
    pub zpool_close: unsafe extern "C" fn(arg1: *mut zpool_handle_t),
    pub zpool_get_features: unsafe extern "C" fn(
        arg1: *mut zpool_handle_t,
    ) -> *mut nvlist_t,
    pub zfs_open: unsafe extern "C" fn(
        arg1: *mut libzfs_handle_t,
        arg2: *const ::core::ffi::c_char,
        arg3: ::core::ffi::c_int,
    ) -> *mut zfs_handle_t,
    pub zfs_close: unsafe extern "C" fn(arg1: *mut zfs_handle_t),
    pub zfs_get_type: unsafe extern "C" fn(arg1: *const zfs_handle_t) -> zfs_type_t,
    pub zfs_get_name: unsafe extern "C" fn(
        arg1: *const zfs_handle_t,
    ) -> *const ::core::ffi::c_char,
    pub zfs_prop_set_list_flags: unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
        arg2: *mut nvlist_t,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int,
    pub zfs_prop_get: unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
        arg2: zfs_prop_t,
        arg3: *mut ::core::ffi::c_char,
        arg4: usize,
        arg5: *mut zprop_source_t,
        arg6: *mut ::core::ffi::c_char,
        arg7: usize,
        arg8: boolean_t,
    ) -> ::core::ffi::c_int,
    pub zfs_prop_get_written_int: unsafe extern "C" fn(
        zhp: *mut zfs_handle_t,
        propname: *const ::core::ffi::c_char,
        propvalue: *mut u64,
    ) -> ::core::ffi::c_int,
    pub zfs_prop_inherit: unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
        arg2: *const ::core::ffi::c_char,
        arg3: boolean_t,
    ) -> ::core::ffi::c_int,
    pub zfs_get_all_props: unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
    ) -> *mut nvlist_t,
    pub zfs_iter_snapshots: unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
        arg2: boolean_t,
        arg3: zfs_iter_f,
        arg4: *mut ::core::ffi::c_void,
        arg5: u64,
        arg6: u64,
    ) -> ::core::ffi::c_int,
    pub zfs_iter_filesystems_v2: unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
        arg2: ::core::ffi::c_int,
        arg3: zfs_iter_f,
        arg4: *mut ::core::ffi::c_void,
    ) -> ::core::ffi::c_int,
    pub zfs_get_fsacl: unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub zfs_set_fsacl: unsafe extern "C" fn(
        arg1: *mut zfs_handle_t,
        arg2: boolean_t,
        arg3: *mut nvlist_t,
    ) -> ::core::ffi::c_int,
    pub zfs_version_userland: unsafe extern "C" fn() -> *const ::core::ffi::c_char,
}
impl OpenZfs {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = unsafe { ::libloading::Library::new(path) }?;
        unsafe { Self::from_library(library) }
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let nvlist_alloc = unsafe { __library.get(b"nvlist_alloc\0") }.map(|sym| *sym)?;
        let nvlist_free = unsafe { __library.get(b"nvlist_free\0") }.map(|sym| *sym)?;
        let nvlist_size = unsafe { __library.get(b"nvlist_size\0") }.map(|sym| *sym)?;
        let nvlist_pack = unsafe { __library.get(b"nvlist_pack\0") }.map(|sym| *sym)?;
        let nvlist_unpack = unsafe { __library.get(b"nvlist_unpack\0") }
            .map(|sym| *sym)?;
        let nvlist_dup = unsafe { __library.get(b"nvlist_dup\0") }.map(|sym| *sym)?;
        let nvlist_add_boolean = unsafe { __library.get(b"nvlist_add_boolean\0") }
            .map(|sym| *sym)?;
        let nvlist_add_boolean_value = unsafe {
            __library.get(b"nvlist_add_boolean_value\0")
        }
            .map(|sym| *sym)?;
        let nvlist_add_int32 = unsafe { __library.get(b"nvlist_add_int32\0") }
            .map(|sym| *sym)?;
        let nvlist_add_uint32 = unsafe { __library.get(b"nvlist_add_uint32\0") }
            .map(|sym| *sym)?;
        let nvlist_add_int64 = unsafe { __library.get(b"nvlist_add_int64\0") }
            .map(|sym| *sym)?;
        let nvlist_add_uint64 = unsafe { __library.get(b"nvlist_add_uint64\0") }
            .map(|sym| *sym)?;
        let nvlist_add_string = unsafe { __library.get(b"nvlist_add_string\0") }
            .map(|sym| *sym)?;
        let nvlist_add_nvlist = unsafe { __library.get(b"nvlist_add_nvlist\0") }
            .map(|sym| *sym)?;
        let nvlist_add_byte_array = unsafe { __library.get(b"nvlist_add_byte_array\0") }
            .map(|sym| *sym)?;
        let nvlist_add_uint64_array = unsafe {
            __library.get(b"nvlist_add_uint64_array\0")
        }
            .map(|sym| *sym)?;
        let nvlist_add_string_array = unsafe {
            __library.get(b"nvlist_add_string_array\0")
        }
            .map(|sym| *sym)?;
        let nvlist_next_nvpair = unsafe { __library.get(b"nvlist_next_nvpair\0") }
            .map(|sym| *sym)?;
        let nvpair_name = unsafe { __library.get(b"nvpair_name\0") }.map(|sym| *sym)?;
        let nvpair_type = unsafe { __library.get(b"nvpair_type\0") }.map(|sym| *sym)?;
        let nvpair_value_boolean_value = unsafe {
            __library.get(b"nvpair_value_boolean_value\0")
        }
            .map(|sym| *sym)?;
        let nvpair_value_int32 = unsafe { __library.get(b"nvpair_value_int32\0") }
            .map(|sym| *sym)?;
        let nvpair_value_uint32 = unsafe { __library.get(b"nvpair_value_uint32\0") }
            .map(|sym| *sym)?;
        let nvpair_value_int64 = unsafe { __library.get(b"nvpair_value_int64\0") }
            .map(|sym| *sym)?;
        let nvpair_value_uint64 = unsafe { __library.get(b"nvpair_value_uint64\0") }
            .map(|sym| *sym)?;
        let nvpair_value_string = unsafe { __library.get(b"nvpair_value_string\0") }
            .map(|sym| *sym)?;
        let nvpair_value_nvlist = unsafe { __library.get(b"nvpair_value_nvlist\0") }
            .map(|sym| *sym)?;
        let nvpair_value_byte_array = unsafe {
            __library.get(b"nvpair_value_byte_array\0")
        }
            .map(|sym| *sym)?;
        let nvpair_value_uint8_array = unsafe {
            __library.get(b"nvpair_value_uint8_array\0")
        }
            .map(|sym| *sym)?;
        let nvpair_value_uint64_array = unsafe {
            __library.get(b"nvpair_value_uint64_array\0")
        }
            .map(|sym| *sym)?;
        let nvpair_value_string_array = unsafe {
            __library.get(b"nvpair_value_string_array\0")
        }
            .map(|sym| *sym)?;
        let nvpair_value_nvlist_array = unsafe {
            __library.get(b"nvpair_value_nvlist_array\0")
        }
            .map(|sym| *sym)?;
        let zfs_name_to_prop = unsafe { __library.get(b"zfs_name_to_prop\0") }
            .map(|sym| *sym)?;
        let libzfs_core_init = unsafe { __library.get(b"libzfs_core_init\0") }
            .map(|sym| *sym)?;
        let libzfs_core_fini = unsafe { __library.get(b"libzfs_core_fini\0") }
            .map(|sym| *sym)?;
        let lzc_snapshot = unsafe { __library.get(b"lzc_snapshot\0") }.map(|sym| *sym)?;
        let lzc_create = unsafe { __library.get(b"lzc_create\0") }.map(|sym| *sym)?;
        let lzc_clone = unsafe { __library.get(b"lzc_clone\0") }.map(|sym| *sym)?;
        let lzc_promote = unsafe { __library.get(b"lzc_promote\0") }.map(|sym| *sym)?;
        let lzc_destroy_snaps = unsafe { __library.get(b"lzc_destroy_snaps\0") }
            .map(|sym| *sym)?;
        let lzc_bookmark = unsafe { __library.get(b"lzc_bookmark\0") }.map(|sym| *sym)?;
        let lzc_get_bookmarks = unsafe { __library.get(b"lzc_get_bookmarks\0") }
            .map(|sym| *sym)?;
        let lzc_destroy_bookmarks = unsafe { __library.get(b"lzc_destroy_bookmarks\0") }
            .map(|sym| *sym)?;
        let lzc_hold = unsafe { __library.get(b"lzc_hold\0") }.map(|sym| *sym)?;
        let lzc_release = unsafe { __library.get(b"lzc_release\0") }.map(|sym| *sym)?;
        let lzc_get_holds = unsafe { __library.get(b"lzc_get_holds\0") }
            .map(|sym| *sym)?;
        let lzc_send = unsafe { __library.get(b"lzc_send\0") }.map(|sym| *sym)?;
        let lzc_send_space = unsafe { __library.get(b"lzc_send_space\0") }
            .map(|sym| *sym)?;
        let lzc_receive = unsafe { __library.get(b"lzc_receive\0") }.map(|sym| *sym)?;
        let lzc_exists = unsafe { __library.get(b"lzc_exists\0") }.map(|sym| *sym)?;
        let lzc_rollback_to = unsafe { __library.get(b"lzc_rollback_to\0") }
            .map(|sym| *sym)?;
        let lzc_rename = unsafe { __library.get(b"lzc_rename\0") }.map(|sym| *sym)?;
        let lzc_destroy = unsafe { __library.get(b"lzc_destroy\0") }.map(|sym| *sym)?;
        let lzc_channel_program = unsafe { __library.get(b"lzc_channel_program\0") }
            .map(|sym| *sym)?;
        let lzc_channel_program_nosync = unsafe {
            __library.get(b"lzc_channel_program_nosync\0")
        }
            .map(|sym| *sym)?;
        let lzc_sync = unsafe { __library.get(b"lzc_sync\0") }.map(|sym| *sym)?;
        let libzfs_init = unsafe { __library.get(b"libzfs_init\0") }.map(|sym| *sym)?;
        let libzfs_fini = unsafe { __library.get(b"libzfs_fini\0") }.map(|sym| *sym)?;
        let libzfs_print_on_error = unsafe { __library.get(b"libzfs_print_on_error\0") }
            .map(|sym| *sym)?;
        let libzfs_errno = unsafe { __library.get(b"libzfs_errno\0") }.map(|sym| *sym)?;
        let libzfs_error_description = unsafe {
            __library.get(b"libzfs_error_description\0")
        }
            .map(|sym| *sym)?;
        let zpool_open = unsafe { __library.get(b"zpool_open\0") }.map(|sym| *sym)?;
        let zpool_close = unsafe { __library.get(b"zpool_close\0") }.map(|sym| *sym)?;
        let zpool_get_features = unsafe { __library.get(b"zpool_get_features\0") }
            .map(|sym| *sym)?;
        let zfs_open = unsafe { __library.get(b"zfs_open\0") }.map(|sym| *sym)?;
        let zfs_close = unsafe { __library.get(b"zfs_close\0") }.map(|sym| *sym)?;
        let zfs_get_type = unsafe { __library.get(b"zfs_get_type\0") }.map(|sym| *sym)?;
        let zfs_get_name = unsafe { __library.get(b"zfs_get_name\0") }.map(|sym| *sym)?;
        let zfs_prop_set_list_flags = unsafe {
            __library.get(b"zfs_prop_set_list_flags\0")
        }
            .map(|sym| *sym)?;
        let zfs_prop_get = unsafe { __library.get(b"zfs_prop_get\0") }.map(|sym| *sym)?;
        let zfs_prop_get_written_int = unsafe {
            __library.get(b"zfs_prop_get_written_int\0")
        }
            .map(|sym| *sym)?;
        let zfs_prop_inherit = unsafe { __library.get(b"zfs_prop_inherit\0") }
            .map(|sym| *sym)?;
        let zfs_get_all_props = unsafe { __library.get(b"zfs_get_all_props\0") }
            .map(|sym| *sym)?;
        let zfs_iter_snapshots = unsafe { __library.get(b"zfs_iter_snapshots\0") }
            .map(|sym| *sym)?;
        let zfs_iter_filesystems_v2 = unsafe {
            __library.get(b"zfs_iter_filesystems_v2\0")
        }
            .map(|sym| *sym)?;
        let zfs_get_fsacl = unsafe { __library.get(b"zfs_get_fsacl\0") }
            .map(|sym| *sym)?;
        let zfs_set_fsacl = unsafe { __library.get(b"zfs_set_fsacl\0") }
            .map(|sym| *sym)?;
        let zfs_version_userland = unsafe { __library.get(b"zfs_version_userland\0") }
            .map(|sym| *sym)?;
        Ok(OpenZfs {
            __library,
            nvlist_alloc,
            nvlist_free,
            nvlist_size,
            nvlist_pack,
            nvlist_unpack,
            nvlist_dup,
            nvlist_add_boolean,
            nvlist_add_boolean_value,
            nvlist_add_int32,
            nvlist_add_uint32,
            nvlist_add_int64,
            nvlist_add_uint64,
            nvlist_add_string,
            nvlist_add_nvlist,
            nvlist_add_byte_array,
            nvlist_add_uint64_array,
            nvlist_add_string_array,
            nvlist_next_nvpair,
            nvpair_name,
            nvpair_type,
            nvpair_value_boolean_value,
            nvpair_value_int32,
            nvpair_value_uint32,
            nvpair_value_int64,
            nvpair_value_uint64,
            nvpair_value_string,
            nvpair_value_nvlist,
            nvpair_value_byte_array,
            nvpair_value_uint8_array,
            nvpair_value_uint64_array,
            nvpair_value_string_array,
            nvpair_value_nvlist_array,
            zfs_name_to_prop,
            libzfs_core_init,
            libzfs_core_fini,
            lzc_snapshot,
            lzc_create,
            lzc_clone,
            lzc_promote,
            lzc_destroy_snaps,
            lzc_bookmark,
            lzc_get_bookmarks,
            lzc_destroy_bookmarks,
            lzc_hold,
            lzc_release,
            lzc_get_holds,
            lzc_send,
            lzc_send_space,
            lzc_receive,
            lzc_exists,
            lzc_rollback_to,
            lzc_rename,
            lzc_destroy,
            lzc_channel_program,
            lzc_channel_program_nosync,
            lzc_sync,
            libzfs_init,
            libzfs_fini,
            libzfs_print_on_error,
            libzfs_errno,
            libzfs_error_description,
            zpool_open,
            zpool_close,
            zpool_get_features,
            zfs_open,
            zfs_close,
            zfs_get_type,
            zfs_get_name,
            zfs_prop_set_list_flags,
            zfs_prop_get,
            zfs_prop_get_written_int,
            zfs_prop_inherit,
            zfs_get_all_props,
            zfs_iter_snapshots,
            zfs_iter_filesystems_v2,
            zfs_get_fsacl,
            zfs_set_fsacl,
            zfs_version_userland,
        })
    }
    pub unsafe fn nvlist_alloc(
        &self,
        arg1: *mut *mut nvlist_t,
        arg2: uint_t,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_alloc)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_free(&self, arg1: *mut nvlist_t) {
        unsafe { (self.nvlist_free)(arg1) }
    }
    pub unsafe fn nvlist_size(
        &self,
        arg1: *mut nvlist_t,
        arg2: *mut usize,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_size)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_pack(
        &self,
        arg1: *mut nvlist_t,
        arg2: *mut *mut ::core::ffi::c_char,
        arg3: *mut usize,
        arg4: ::core::ffi::c_int,
        arg5: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_pack)(arg1, arg2, arg3, arg4, arg5) }
    }
    pub unsafe fn nvlist_unpack(
        &self,
        arg1: *mut ::core::ffi::c_char,
        arg2: usize,
        arg3: *mut *mut nvlist_t,
        arg4: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_unpack)(arg1, arg2, arg3, arg4) }
    }
    pub unsafe fn nvlist_dup(
        &self,
        arg1: *const nvlist_t,
        arg2: *mut *mut nvlist_t,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_dup)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_add_boolean(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_boolean)(arg1, arg2) }
    }
    pub unsafe fn nvlist_add_boolean_value(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: boolean_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_boolean_value)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_add_int32(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: i32,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_int32)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_add_uint32(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: u32,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_uint32)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_add_int64(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: i64,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_int64)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_add_uint64(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: u64,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_uint64)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_add_string(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_string)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_add_nvlist(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_nvlist)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvlist_add_byte_array(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const uchar_t,
        arg4: uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_byte_array)(arg1, arg2, arg3, arg4) }
    }
    pub unsafe fn nvlist_add_uint64_array(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const u64,
        arg4: uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_uint64_array)(arg1, arg2, arg3, arg4) }
    }
    pub unsafe fn nvlist_add_string_array(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const ::core::ffi::c_char,
        arg3: *const *const ::core::ffi::c_char,
        arg4: uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvlist_add_string_array)(arg1, arg2, arg3, arg4) }
    }
    pub unsafe fn nvlist_next_nvpair(
        &self,
        arg1: *mut nvlist_t,
        arg2: *const nvpair_t,
    ) -> *mut nvpair_t {
        unsafe { (self.nvlist_next_nvpair)(arg1, arg2) }
    }
    pub unsafe fn nvpair_name(
        &self,
        arg1: *const nvpair_t,
    ) -> *const ::core::ffi::c_char {
        unsafe { (self.nvpair_name)(arg1) }
    }
    pub unsafe fn nvpair_type(&self, arg1: *const nvpair_t) -> data_type_t {
        unsafe { (self.nvpair_type)(arg1) }
    }
    pub unsafe fn nvpair_value_boolean_value(
        &self,
        arg1: *const nvpair_t,
        arg2: *mut boolean_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_boolean_value)(arg1, arg2) }
    }
    pub unsafe fn nvpair_value_int32(
        &self,
        arg1: *const nvpair_t,
        arg2: *mut i32,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_int32)(arg1, arg2) }
    }
    pub unsafe fn nvpair_value_uint32(
        &self,
        arg1: *const nvpair_t,
        arg2: *mut u32,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_uint32)(arg1, arg2) }
    }
    pub unsafe fn nvpair_value_int64(
        &self,
        arg1: *const nvpair_t,
        arg2: *mut i64,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_int64)(arg1, arg2) }
    }
    pub unsafe fn nvpair_value_uint64(
        &self,
        arg1: *const nvpair_t,
        arg2: *mut u64,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_uint64)(arg1, arg2) }
    }
    pub unsafe fn nvpair_value_string(
        &self,
        arg1: *const nvpair_t,
        arg2: *mut *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_string)(arg1, arg2) }
    }
    pub unsafe fn nvpair_value_nvlist(
        &self,
        arg1: *mut nvpair_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_nvlist)(arg1, arg2) }
    }
    pub unsafe fn nvpair_value_byte_array(
        &self,
        arg1: *mut nvpair_t,
        arg2: *mut *mut uchar_t,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_byte_array)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvpair_value_uint8_array(
        &self,
        arg1: *mut nvpair_t,
        arg2: *mut *mut u8,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_uint8_array)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvpair_value_uint64_array(
        &self,
        arg1: *mut nvpair_t,
        arg2: *mut *mut u64,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_uint64_array)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvpair_value_string_array(
        &self,
        arg1: *mut nvpair_t,
        arg2: *mut *mut *const ::core::ffi::c_char,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_string_array)(arg1, arg2, arg3) }
    }
    pub unsafe fn nvpair_value_nvlist_array(
        &self,
        arg1: *mut nvpair_t,
        arg2: *mut *mut *mut nvlist_t,
        arg3: *mut uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.nvpair_value_nvlist_array)(arg1, arg2, arg3) }
    }
    pub unsafe fn zfs_name_to_prop(
        &self,
        arg1: *const ::core::ffi::c_char,
    ) -> zfs_prop_t {
        unsafe { (self.zfs_name_to_prop)(arg1) }
    }
    pub unsafe fn libzfs_core_init(&self) -> ::core::ffi::c_int {
        unsafe { (self.libzfs_core_init)() }
    }
    pub unsafe fn libzfs_core_fini(&self) {
        unsafe { (self.libzfs_core_fini)() }
    }
    pub unsafe fn lzc_snapshot(
        &self,
        arg1: *mut nvlist_t,
        arg2: *mut nvlist_t,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_snapshot)(arg1, arg2, arg3) }
    }
    pub unsafe fn lzc_create(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: lzc_dataset_type,
        arg3: *mut nvlist_t,
        arg4: *mut u8,
        arg5: uint_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_create)(arg1, arg2, arg3, arg4, arg5) }
    }
    pub unsafe fn lzc_clone(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_clone)(arg1, arg2, arg3) }
    }
    pub unsafe fn lzc_promote(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *mut ::core::ffi::c_char,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_promote)(arg1, arg2, arg3) }
    }
    pub unsafe fn lzc_destroy_snaps(
        &self,
        arg1: *mut nvlist_t,
        arg2: boolean_t,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_destroy_snaps)(arg1, arg2, arg3) }
    }
    pub unsafe fn lzc_bookmark(
        &self,
        arg1: *mut nvlist_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_bookmark)(arg1, arg2) }
    }
    pub unsafe fn lzc_get_bookmarks(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *mut nvlist_t,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_get_bookmarks)(arg1, arg2, arg3) }
    }
    pub unsafe fn lzc_destroy_bookmarks(
        &self,
        arg1: *mut nvlist_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_destroy_bookmarks)(arg1, arg2) }
    }
    pub unsafe fn lzc_hold(
        &self,
        arg1: *mut nvlist_t,
        arg2: ::core::ffi::c_int,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_hold)(arg1, arg2, arg3) }
    }
    pub unsafe fn lzc_release(
        &self,
        arg1: *mut nvlist_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_release)(arg1, arg2) }
    }
    pub unsafe fn lzc_get_holds(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_get_holds)(arg1, arg2) }
    }
    pub unsafe fn lzc_send(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: ::core::ffi::c_int,
        arg4: lzc_send_flags,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_send)(arg1, arg2, arg3, arg4) }
    }
    pub unsafe fn lzc_send_space(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: lzc_send_flags,
        arg4: *mut u64,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_send_space)(arg1, arg2, arg3, arg4) }
    }
    pub unsafe fn lzc_receive(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *mut nvlist_t,
        arg3: *const ::core::ffi::c_char,
        arg4: boolean_t,
        arg5: boolean_t,
        arg6: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_receive)(arg1, arg2, arg3, arg4, arg5, arg6) }
    }
    pub unsafe fn lzc_exists(&self, arg1: *const ::core::ffi::c_char) -> boolean_t {
        unsafe { (self.lzc_exists)(arg1) }
    }
    pub unsafe fn lzc_rollback_to(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_rollback_to)(arg1, arg2) }
    }
    pub unsafe fn lzc_rename(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_rename)(arg1, arg2) }
    }
    pub unsafe fn lzc_destroy(
        &self,
        arg1: *const ::core::ffi::c_char,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_destroy)(arg1) }
    }
    pub unsafe fn lzc_channel_program(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: u64,
        arg4: u64,
        arg5: *mut nvlist_t,
        arg6: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_channel_program)(arg1, arg2, arg3, arg4, arg5, arg6) }
    }
    pub unsafe fn lzc_channel_program_nosync(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *const ::core::ffi::c_char,
        arg3: u64,
        arg4: u64,
        arg5: *mut nvlist_t,
        arg6: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_channel_program_nosync)(arg1, arg2, arg3, arg4, arg5, arg6) }
    }
    pub unsafe fn lzc_sync(
        &self,
        arg1: *const ::core::ffi::c_char,
        arg2: *mut nvlist_t,
        arg3: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.lzc_sync)(arg1, arg2, arg3) }
    }
    pub unsafe fn libzfs_init(&self) -> *mut libzfs_handle_t {
        unsafe { (self.libzfs_init)() }
    }
    pub unsafe fn libzfs_fini(&self, arg1: *mut libzfs_handle_t) {
        unsafe { (self.libzfs_fini)(arg1) }
    }
    pub unsafe fn libzfs_print_on_error(
        &self,
        arg1: *mut libzfs_handle_t,
        arg2: boolean_t,
    ) {
        unsafe { (self.libzfs_print_on_error)(arg1, arg2) }
    }
    pub unsafe fn libzfs_errno(&self, arg1: *mut libzfs_handle_t) -> ::core::ffi::c_int {
        unsafe { (self.libzfs_errno)(arg1) }
    }
    pub unsafe fn libzfs_error_description(
        &self,
        arg1: *mut libzfs_handle_t,
    ) -> *const ::core::ffi::c_char {
        unsafe { (self.libzfs_error_description)(arg1) }
    }
    pub unsafe fn zpool_open(
        &self,
        arg1: *mut libzfs_handle_t,
        arg2: *const ::core::ffi::c_char,
    ) -> *mut zpool_handle_t {
        unsafe { (self.zpool_open)(arg1, arg2) }
    }
    pub unsafe fn zpool_close(&self, arg1: *mut zpool_handle_t) {
        unsafe { (self.zpool_close)(arg1) }
    }
    pub unsafe fn zpool_get_features(&self, arg1: *mut zpool_handle_t) -> *mut nvlist_t {
        unsafe { (self.zpool_get_features)(arg1) }
    }
    pub unsafe fn zfs_open(
        &self,
        arg1: *mut libzfs_handle_t,
        arg2: *const ::core::ffi::c_char,
        arg3: ::core::ffi::c_int,
    ) -> *mut zfs_handle_t {
        unsafe { (self.zfs_open)(arg1, arg2, arg3) }
    }
    pub unsafe fn zfs_close(&self, arg1: *mut zfs_handle_t) {
        unsafe { (self.zfs_close)(arg1) }
    }
    pub unsafe fn zfs_get_type(&self, arg1: *const zfs_handle_t) -> zfs_type_t {
        unsafe { (self.zfs_get_type)(arg1) }
    }
    pub unsafe fn zfs_get_name(
        &self,
        arg1: *const zfs_handle_t,
    ) -> *const ::core::ffi::c_char {
        unsafe { (self.zfs_get_name)(arg1) }
    }
    pub unsafe fn zfs_prop_set_list_flags(
        &self,
        arg1: *mut zfs_handle_t,
        arg2: *mut nvlist_t,
        arg3: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int {
        unsafe { (self.zfs_prop_set_list_flags)(arg1, arg2, arg3) }
    }
    pub unsafe fn zfs_prop_get(
        &self,
        arg1: *mut zfs_handle_t,
        arg2: zfs_prop_t,
        arg3: *mut ::core::ffi::c_char,
        arg4: usize,
        arg5: *mut zprop_source_t,
        arg6: *mut ::core::ffi::c_char,
        arg7: usize,
        arg8: boolean_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.zfs_prop_get)(arg1, arg2, arg3, arg4, arg5, arg6, arg7, arg8) }
    }
    pub unsafe fn zfs_prop_get_written_int(
        &self,
        zhp: *mut zfs_handle_t,
        propname: *const ::core::ffi::c_char,
        propvalue: *mut u64,
    ) -> ::core::ffi::c_int {
        unsafe { (self.zfs_prop_get_written_int)(zhp, propname, propvalue) }
    }
    pub unsafe fn zfs_prop_inherit(
        &self,
        arg1: *mut zfs_handle_t,
        arg2: *const ::core::ffi::c_char,
        arg3: boolean_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.zfs_prop_inherit)(arg1, arg2, arg3) }
    }
    pub unsafe fn zfs_get_all_props(&self, arg1: *mut zfs_handle_t) -> *mut nvlist_t {
        unsafe { (self.zfs_get_all_props)(arg1) }
    }
    pub unsafe fn zfs_iter_snapshots(
        &self,
        arg1: *mut zfs_handle_t,
        arg2: boolean_t,
        arg3: zfs_iter_f,
        arg4: *mut ::core::ffi::c_void,
        arg5: u64,
        arg6: u64,
    ) -> ::core::ffi::c_int {
        unsafe { (self.zfs_iter_snapshots)(arg1, arg2, arg3, arg4, arg5, arg6) }
    }
    pub unsafe fn zfs_iter_filesystems_v2(
        &self,
        arg1: *mut zfs_handle_t,
        arg2: ::core::ffi::c_int,
        arg3: zfs_iter_f,
        arg4: *mut ::core::ffi::c_void,
    ) -> ::core::ffi::c_int {
        unsafe { (self.zfs_iter_filesystems_v2)(arg1, arg2, arg3, arg4) }
    }
    pub unsafe fn zfs_get_fsacl(
        &self,
        arg1: *mut zfs_handle_t,
        arg2: *mut *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.zfs_get_fsacl)(arg1, arg2) }
    }
    pub unsafe fn zfs_set_fsacl(
        &self,
        arg1: *mut zfs_handle_t,
        arg2: boolean_t,
        arg3: *mut nvlist_t,
    ) -> ::core::ffi::c_int {
        unsafe { (self.zfs_set_fsacl)(arg1, arg2, arg3) }
    }
    pub unsafe fn zfs_version_userland(&self) -> *const ::core::ffi::c_char {
        unsafe { (self.zfs_version_userland)() }
    }
}
