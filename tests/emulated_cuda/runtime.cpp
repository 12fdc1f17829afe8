// The few functions of a CUDA build of torch that csrc/cuda calls.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

extern "C" {

__attribute__((visibility("hidden"))) AOTITorchError aoti_torch_get_current_cuda_stream(
    int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
__attribute__((visibility("hidden"))) AOTITorchError aoti_torch_create_device_guard(
    int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return 0;
}
__attribute__((visibility("hidden"))) AOTITorchError aoti_torch_delete_device_guard(
    DeviceGuardHandle) {
  return 0;
}
__attribute__((visibility("hidden"))) AOTITorchError torch_c10_cuda_check_msg(
    int32_t, const char*, const char*, uint32_t, bool, char** message) {
  *message = nullptr;
  return 0;
}
__attribute__((visibility("hidden"))) void torch_c10_cuda_free_error_msg(char*) {}

}
