// A device that is not there: tensors have a vendor's device type and live in host memory, every operation is done by
// the CPU. So a whole training, autocast, loss scaling and collectives included, runs as it would on the device.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/library.h>

#include <malloc.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

constexpr int DEVICES = 8;
// Of the process, so that autograd's threads see what the program has set.
c10::DeviceIndex current_device = 0;
std::set<int64_t> convolved;
// As Ascend's plug-in, which has no other tensors.
bool contiguous_only = false;
bool has_left_sgd_to_cpu = false;

// ---- a queue: results are there at once, but whoever reads them waits as long as the work would have taken

std::atomic<double> busy_until{0.0};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds_per_batch() {
  const char* seconds = std::getenv("STUB_QUEUE_SECONDS");
  return seconds ? std::atof(seconds) : 0.0;
}

// Once in every backward pass of a classifier.
void enqueue_after(const std::string& operation) {
  static const double seconds = seconds_per_batch();
  if (seconds > 0 && operation == "aten::_log_softmax_backward_data") {
    busy_until = std::max(busy_until.load(), now()) + seconds;
  }
}

void wait_for_queue() {
  const double left = busy_until - now();
  if (left > 0) {
    std::this_thread::sleep_for(std::chrono::duration<double>(left));
  }
}

// ---- memory

std::atomic<int64_t> taken{0};

int64_t capacity() {
  const char* limit = std::getenv("STUB_MEMORY_BYTES");
  return limit ? std::atoll(limit) : INT64_MAX;
}

// The number of the one allocation that finds no memory, as if somebody else had it just then.
int64_t refused_allocation() {
  const char* number = std::getenv("STUB_REFUSED_ALLOCATION");
  return number ? std::atoll(number) : -1;
}

void release(void* pointer) {
  taken -= malloc_usable_size(pointer);
  std::free(pointer);
}

struct HostMemory final : at::Allocator {
  explicit HostMemory(c10::DeviceType kind) : kind_(kind) {}
  at::DataPtr allocate(size_t size) override {
    static const int64_t limit = capacity();
    static const int64_t refused = refused_allocation();
    static std::atomic<int64_t> allocations{0};
    if (taken + static_cast<int64_t>(size) > limit || ++allocations == refused) {
      throw std::runtime_error("stub device: out of memory");
    }
    void* pointer = size ? std::malloc(size) : nullptr;
    taken += pointer ? malloc_usable_size(pointer) : 0;
    return {pointer, pointer, &release, at::Device(kind_, current_device)};
  }
  at::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    default_copy_data(to, from, size);
  }
  c10::DeviceType kind_;
};

template <c10::DeviceType KIND>
at::Allocator* memory() {
  static HostMemory allocator(KIND);
  return &allocator;
}

// ---- what torch asks of a device

template <c10::DeviceType KIND>
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return KIND;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    c10::Device old(KIND, current_device);
    current_device = device.index();
    return old;
  }
  c10::Device getDevice() const override {
    return c10::Device(KIND, current_device);
  }
  void setDevice(c10::Device device) const override {
    current_device = device.index();
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current_device = device.index();
  }
  c10::Stream getStream(c10::Device device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    return stream;
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return DEVICES;
  }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard<c10::DeviceType::PrivateUse1>)
C10_REGISTER_GUARD_IMPL(XLA, Guard<c10::DeviceType::XLA>)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
    return true;
  }
  bool isPinnedPtr(const void*) const override {
    return true;  // all memory is the host's
  }
  at::Allocator* getPinnedMemoryAllocator() const override {
    return at::getCPUAllocator();
  }
};

// ---- the operations that cannot be left to the CPU

template <c10::DeviceType KIND, c10::DispatchKey KEY>
struct Kernels {
  static at::Tensor empty(
      at::IntArrayRef size,
      std::optional<at::ScalarType> type,
      std::optional<at::Layout>,
      std::optional<at::Device> device,
      std::optional<bool>,
      std::optional<at::MemoryFormat> format) {
    TORCH_CHECK(
        !contiguous_only || format.value_or(at::MemoryFormat::Contiguous) == at::MemoryFormat::Contiguous,
        "Only c10::MemoryFormat::Contiguous is supported for creating a tensor of the stub");
    const auto old = current_device;
    if (device.has_value() && device->has_index()) {
      current_device = device->index();
    }
    auto kind = type.value_or(at::typeMetaToScalarType(at::get_default_dtype()));
    at::Tensor made = at::detail::empty_generic(size, memory<KIND>(), c10::DispatchKeySet(KEY), kind, format);
    current_device = old;
    return made;
  }

  static at::Tensor empty_strided(
      at::IntArrayRef size,
      at::IntArrayRef stride,
      std::optional<at::ScalarType> type,
      std::optional<at::Layout> layout,
      std::optional<at::Device> device,
      std::optional<bool> pinned) {
    int64_t last = 1;
    for (size_t i = 0; i < size.size(); i++) {
      last = size[i] == 0 || last == 0 ? 0 : last + (size[i] - 1) * stride[i];
    }
    return as_strided(empty({last}, type, layout, device, pinned, std::nullopt), size, stride, 0);
  }

  static at::Tensor as_strided(
      const at::Tensor& self, at::IntArrayRef size, at::IntArrayRef stride, std::optional<int64_t> offset) {
    auto result = at::detail::make_tensor<c10::TensorImpl>(
        c10::TensorImpl::VIEW, c10::Storage(self.storage()), self.key_set(), self.dtype());
    result.unsafeGetTensorImpl()->set_storage_offset(offset.value_or(self.storage_offset()));
    result.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
    return result;
  }

  static at::Tensor view(const at::Tensor& self, at::IntArrayRef size) {
    auto shape = at::infer_size_dv(size, self.numel());
    auto stride = at::detail::computeStride(self.sizes(), self.strides(), shape);
    TORCH_CHECK(stride.has_value(), "this view needs a copy");
    return as_strided(self, shape, *stride, self.storage_offset());
  }

  static at::Tensor reshape_alias(const at::Tensor& self, at::IntArrayRef size, at::IntArrayRef stride) {
    return as_strided(self, size, stride, self.storage_offset());
  }

  static at::Tensor on_cpu(const at::Tensor& tensor) {
    if (tensor.device().is_cpu()) {
      return tensor;
    }
    auto options = at::TensorOptions().dtype(tensor.scalar_type()).device(at::kCPU);
    return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), options);
  }

  static at::Tensor copy_from(const at::Tensor& self, const at::Tensor& target, bool) {
    if (!self.device().is_cpu() && target.device().is_cpu()) {
      wait_for_queue();
    }
    if (self.numel() > 0) {
      on_cpu(target).copy_(on_cpu(self));
    }
    return target;
  }

  static at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& target) {
    resize(target, self.sizes(), std::nullopt);
    return copy_from(self, target, false);
  }

  static const at::Tensor& resize(
      const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat> format) {
    return resize(self, C10_AS_INTARRAYREF_SLOW(size), format);
  }

  static const at::Tensor& resize(
      const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
    if (self.sizes() != size) {
      auto* impl = self.unsafeGetTensorImpl();
      impl->set_sizes_contiguous(size);
      size_t bytes = (impl->storage_offset() + impl->numel()) * self.itemsize();
      if (bytes > self.storage().nbytes()) {
        auto more = memory<KIND>()->allocate(bytes);
        if (self.storage().nbytes()) {
          std::memcpy(more.get(), self.storage().data(), self.storage().nbytes());
        }
        self.storage().set_data_ptr(std::move(more));
        self.storage().set_nbytes(bytes);
      }
    }
    return self;
  }

  static at::Tensor& set_storage(
      at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size, at::IntArrayRef stride) {
    auto* impl = self.unsafeGetTensorImpl();
    impl->set_storage_keep_dtype(std::move(source));
    impl->set_storage_offset(offset);
    impl->set_sizes_and_strides(size, stride);
    return self;
  }

  static at::Scalar local_scalar(const at::Tensor& self) {
    wait_for_queue();
    return at::_local_scalar_dense(on_cpu(self));
  }

  // Convolutions are computed in fp32 and rounded: a CPU takes seconds for small types.
  static at::Tensor wide(const at::Tensor& tensor) {
    return on_cpu(tensor).to(at::kFloat);
  }

  static at::Tensor convolution(
      const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
      at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
      at::IntArrayRef output_padding, int64_t groups) {
    convolved.insert(static_cast<int64_t>(input.scalar_type()));
    std::optional<at::Tensor> host_bias;
    if (bias.has_value() && bias->defined()) {
      host_bias = wide(*bias);
    }
    return at::convolution(wide(input), wide(weight), host_bias, stride, padding, dilation, transposed, output_padding,
                           groups).to(input.options());
  }

  static std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
      const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
      at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
      int64_t groups, std::array<bool, 3> wanted) {
    std::vector<int64_t> bias{weight.size(0)};
    auto [a, b, c] = at::convolution_backward(wide(gradient), wide(input), wide(weight), bias, stride, padding, dilation,
                                              transposed, output_padding, groups, wanted);
    auto back = [&](const at::Tensor& made) { return made.defined() ? made.to(input.options()) : made; };
    return {back(a), back(b), back(c)};
  }

  static void add(torch::Library& m) {
    m.impl("empty.memory_format", empty);
    m.impl("empty_strided", empty_strided);
    m.impl("as_strided", as_strided);
    m.impl("view", view);
    m.impl("_reshape_alias", reshape_alias);
    m.impl("_copy_from", copy_from);
    m.impl("_copy_from_and_resize", copy_from_and_resize);
    m.impl("resize_", static_cast<const at::Tensor& (*)(const at::Tensor&, c10::SymIntArrayRef,
                                                        std::optional<at::MemoryFormat>)>(resize));
    m.impl("set_.source_Storage_storage_offset", set_storage);
    m.impl("_local_scalar_dense", local_scalar);
    m.impl("convolution_overrideable", convolution);
    m.impl("convolution_backward_overrideable", convolution_backward);
  }
};

void to_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  has_left_sgd_to_cpu |= op.schema().name() == "aten::_fused_sgd_";
  at::native::cpu_fallback(op, stack);
  enqueue_after(op.schema().name());
}

using Own = Kernels<c10::DeviceType::PrivateUse1, c10::DispatchKey::PrivateUse1>;
using Xla = Kernels<c10::DeviceType::XLA, c10::DispatchKey::XLA>;

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  Own::add(m);
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&to_cpu>());
}
TORCH_LIBRARY_IMPL(aten, XLA, m) {
  Xla::add(m);
}
TORCH_LIBRARY_IMPL(_, XLA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&to_cpu>());
}

// ---- collectives: torch routes them by device for its own types and PrivateUse1; other plug-ins bring these along

using Group = c10::intrusive_ptr<c10d::ProcessGroup>;
using Done = c10::intrusive_ptr<c10d::Work>;

template <c10::DeviceType KIND>
struct Collectives {
  static std::tuple<std::vector<at::Tensor>, Done> allreduce(
      at::TensorList tensors, const Group& group, const c10::intrusive_ptr<c10d::ReduceOp>& op,
      const std::optional<at::Tensor>&, bool, int64_t) {
    auto all = tensors.vec();
    c10d::AllreduceOptions options;
    options.reduceOp = *op;
    return {all, group->getBackend(KIND)->allreduce(all, options)};
  }

  static std::tuple<std::vector<at::Tensor>, Done> broadcast(
      at::TensorList tensors, const Group& group, int64_t rank, int64_t tensor, bool, int64_t) {
    auto all = tensors.vec();
    c10d::BroadcastOptions options;
    options.rootRank = rank;
    options.rootTensor = tensor;
    return {all, group->getBackend(KIND)->broadcast(all, options)};
  }

  static std::tuple<std::vector<std::vector<at::Tensor>>, Done> allgather(
      const std::vector<std::vector<at::Tensor>>& outputs, at::TensorList inputs, const Group& group, bool, int64_t) {
    auto out = outputs;
    auto in = inputs.vec();
    return {out, group->getBackend(KIND)->allgather(out, in, c10d::AllgatherOptions())};
  }

  static void add(torch::Library& m) {
    m.impl("allreduce_", allreduce);
    m.impl("broadcast_", broadcast);
    m.impl("allgather_", allgather);
  }
};

TORCH_LIBRARY_IMPL(c10d, XLA, m) {
  Collectives<c10::DeviceType::XLA>::add(m);
}

// ---- autocast: what is computed in the lower precision, as on every device

#define LOWER(KIND)                                                     \
  KERNEL(KIND, conv2d, lower_precision_fp)                              \
  KERNEL(KIND, linear, lower_precision_fp)                              \
  KERNEL(KIND, addmm, lower_precision_fp)                               \
  KERNEL(KIND, mm, lower_precision_fp)                                  \
  KERNEL(KIND, matmul, lower_precision_fp)

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(_, AutocastXLA, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  LOWER(c10::DeviceType::PrivateUse1)
}
TORCH_LIBRARY_IMPL(aten, AutocastXLA, m) {
  LOWER(c10::DeviceType::XLA)
}

// ---- for the stub of a plug-in, in Python

at::Tensor alias(const at::Tensor& tensor) {
  return Own::on_cpu(tensor);
}

void set_device(int64_t index) {
  current_device = static_cast<c10::DeviceIndex>(index);
}

double queue_ends() {
  return busy_until;
}

std::vector<int64_t> convolution_types() {
  return {convolved.begin(), convolved.end()};
}

void have_contiguous_tensors_only() {
  contiguous_only = true;
}

bool left_sgd_to_cpu() {
  return has_left_sgd_to_cpu;
}

void add_hooks() {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
}

TORCH_LIBRARY(stub_device, m) {
  m.def("alias(Tensor self) -> Tensor", alias);
  m.def("set_device(int index) -> ()", set_device);
  m.def("add_hooks() -> ()", add_hooks);
  m.def("have_contiguous_tensors_only() -> ()", have_contiguous_tensors_only);
  m.def("left_sgd_to_cpu() -> bool", left_sgd_to_cpu);
  // On the clock of time.monotonic.
  m.def("queue_ends() -> float", queue_ends);
  // Numbers of the types that convolutions were computed in.
  m.def("convolution_types() -> int[]", convolution_types);
}

} // namespace
